"""The labels of one SAE, from whatever source: a file, or an export of Neuronpedia."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from selfie_adapters.sources.labels.label_columns import Explainer

if TYPE_CHECKING:
    from selfie_adapters.dataset.schema import Split


@dataclass(frozen=True)
class LabelSet:
    """Labels by latent, with where they come from and what was dropped on the way."""

    labels: Mapping[int, list[str]]
    """Latent → its labels, in the order of the source, never empty."""
    splits: Mapping[int, Split] = field(default_factory=dict)
    """Split of each latent; empty if the source has none."""
    origin: dict[str, Any] = field(default_factory=dict)
    """Plain JSON values for a dataset's metadata: where the labels come from and by what rule."""
    report: list[str] = field(default_factory=list)
    """Lines for the reader, with counts: what there is, what was dropped and why."""
    explainers: Mapping[int, list[Explainer]] = field(default_factory=dict)
    """Who wrote each latent's labels; empty for label files that do not state it."""

    def __len__(self) -> int:
        """How many labels there are, over all latents."""
        return sum(map(len, self.labels.values()))

    def restrict(self, d_sae: int) -> LabelSet:
        """Without latents that an SAE of `d_sae` latents does not have; the report counts them."""
        outside = sorted(index for index in self.labels if not 0 <= index < d_sae)
        if not outside:
            return self
        shown = ", ".join(map(str, outside[:5])) + (", …" if len(outside) > 5 else "")
        line = f"{len(outside)} latents out of range (the SAE has {d_sae}): {shown}; dropped"
        gone = set(outside)
        return replace(
            self,
            labels={i: texts for i, texts in self.labels.items() if i not in gone},
            splits={i: split for i, split in self.splits.items() if i not in gone},
            report=[*self.report, line],
            explainers={i: who for i, who in self.explainers.items() if i not in gone},
        )
