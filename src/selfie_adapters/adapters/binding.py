"""What an adapter was trained for: the model, the prompt, and a fingerprint of a forward pass.

A soft token means something only to the model and prompt it was trained through. The
binding travels in the adapter's file; `Binding.check` compares it with the model
at hand. Making a binding from a live model is the model package's work; this file only compares.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from selfie_adapters.config.types import Chat
from selfie_adapters.errors import BindingError

NORM_TOLERANCE = 0.01
"""Relative difference of the mean embedding norm that is let pass: room for the rounding of another
dtype (bfloat16 keeps 8 bits of each number, and a mean over the vocabulary evens it out)."""

FINGERPRINT_TOLERANCE = 0.05
"""Largest difference of a fingerprint number, relative to the largest magnitude in either
fingerprint, that is let pass. Relative to the largest, because a number near zero has no
meaningful relative error of its own."""


class Binding(BaseModel):
    """The model and prompt an adapter belongs to.

    `model` is a hub id or local path and `revision` the hub commit where known; `placeholder_id`
    is the token id of `placeholder` and `sites` its positions in the tokenized `template`, BOS
    included; `end` is the token that ends an answer where a setting chose it (None: that of the
    tokenizer's chat format); `layer` is the zero-based block whose output the training vectors
    came from (None when they came from no layer, or from several); `mean_embedding_norm` is the
    mean L2 norm of the embedding layer's outputs over the vocabulary; `fingerprint` holds a few
    numbers from one forward pass; `versions` maps library names to versions.

    How the training vectors were captured, None where the training file does not state it: `chat`
    is the chat format of their prompts ("template", "bare", "none"), `question` what the topics
    were put into, `position` the token of the prompt (from the end when negative; "name" for the
    last one of a topic's name in a sentence; None where there were several). `no_concept` is the
    label of the training vectors that hold no concept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str
    revision: str | None = None
    d_model: int = Field(gt=0)
    template: str
    placeholder: str
    placeholder_id: int
    end: str | None = None
    sites: tuple[int, ...]
    layer: int | None = None
    mean_embedding_norm: float = Field(ge=0)
    versions: dict[str, str] = Field(default_factory=dict)
    fingerprint: tuple[float, ...] = ()
    chat: Chat | None = None
    question: str | None = None
    position: int | Literal["name"] | None = None
    no_concept: str | None = None

    def check(self, live: Binding) -> None:
        """Raise BindingError if `live` is not what this adapter was trained for.

        The message lists every difference with both sides and states how to continue regardless.
        """
        differences = self.differences(live)
        if differences:
            listed = "\n".join(f"  - {difference}" for difference in differences)
            raise BindingError(
                f"the adapter belongs to another model or prompt:\n{listed}\n"
                "Load the model and prompt it was trained with, or, to use it as it is, "
                "pass check=False (--ignore-binding on the command line)."
            )

    def differences(self, live: Binding) -> list[str]:
        """One sentence for every difference that matters; empty when the adapter fits.

        A name is only a pointer to weights: the same weights are reached by a hub id, a local
        folder or a mirror's id, and one path may hold other weights tomorrow. So the weights
        decide: when both sides have a fingerprint and fingerprint and embedding norm agree, a
        different name alone is no difference. A revision means something only within one
        repository, so revisions are compared only under equal names, and only when both are known.
        Library versions, the layer and how the vectors were captured are for the reader: the live
        side cannot contradict them.
        """
        norm_agrees = _relative(self.mean_embedding_norm, live.mean_embedding_norm) <= (
            NORM_TOLERANCE
        )
        distance = self._fingerprint_distance(live)
        weights_agree = norm_agrees and distance is not None and distance <= FINGERPRINT_TOLERANCE

        found: list[str] = []
        if self.model != live.model:
            if not weights_agree:
                found.append(_sides("model", self.model, live.model))
                if norm_agrees and self.fingerprint and not live.fingerprint:
                    found[-1] += " (no forward fingerprint was computed to compare their weights)"
        elif self.revision and live.revision and self.revision != live.revision:
            found.append(_sides(f"revision of {self.model}", self.revision, live.revision))
        for field, name in (
            ("d_model", "d_model"),
            ("template", "prompt template"),
            ("placeholder_id", "placeholder token id"),
            ("sites", "placeholder positions"),
        ):
            mine, theirs = getattr(self, field), getattr(live, field)
            if mine != theirs:
                found.append(_sides(name, mine, theirs))
        if not norm_agrees:
            found.append(
                _sides(
                    "mean embedding norm",
                    round(self.mean_embedding_norm, 6),
                    round(live.mean_embedding_norm, 6),
                )
                + f" (more than {NORM_TOLERANCE:.0%} apart)"
            )
        if self.fingerprint and live.fingerprint:
            if distance is None:
                lengths = len(self.fingerprint), len(live.fingerprint)
                found.append(_sides("number of values in the forward fingerprint", *lengths))
            elif distance > FINGERPRINT_TOLERANCE:
                mine, theirs = self.fingerprint, live.fingerprint
                worst = max(range(len(mine)), key=lambda i: abs(mine[i] - theirs[i]))
                found.append(
                    _sides(f"forward fingerprint, value {worst}", mine[worst], theirs[worst])
                    + f" ({distance:.1%} of its largest value; {FINGERPRINT_TOLERANCE:.0%} allowed)"
                )
        return found

    def _fingerprint_distance(self, live: Binding) -> float | None:
        """max |a - b| / max(|a|, |b|) over the fingerprints; None where they cannot be compared."""
        mine, theirs = self.fingerprint, live.fingerprint
        if not mine or len(mine) != len(theirs):
            return None
        largest = max(abs(number) for number in (*mine, *theirs))
        apart = max(abs(a - b) for a, b in zip(mine, theirs, strict=True))
        return apart / largest if largest else 0.0


def _relative(a: float, b: float) -> float:
    """|a - b| over the larger magnitude; 0 when both are 0."""
    largest = max(abs(a), abs(b))
    return abs(a - b) / largest if largest else 0.0


def _sides(what: str, adapter: object, live: object) -> str:
    return f"{what}: the adapter was trained with {adapter!r}, the live side has {live!r}"
