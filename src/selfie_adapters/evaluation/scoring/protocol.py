"""The scoring protocol: labels of every condition, conversations from them, hits, results.

Labels by the adapter are compared with those of the zero vector, random directions, plain vectors
without an adapter, the logit lens, and the label file's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfie_adapters.adapters.base import unit_norm
from selfie_adapters.adapters.locating import find_adapter_file
from selfie_adapters.config.evaluation.scoring import ScoringSettings
from selfie_adapters.dataset.vectors import open_vectors
from selfie_adapters.errors import DataError, ModelError
from selfie_adapters.evaluation.base import Protocol
from selfie_adapters.evaluation.comparing import METHOD, p_text
from selfie_adapters.evaluation.folder import EvaluationFolder, digest_of
from selfie_adapters.evaluation.published.scoring import read_scoring_config
from selfie_adapters.evaluation.scoring.conversations import Writing
from selfie_adapters.evaluation.scoring.generation import (
    Scoring,
    ScoringRow,
    others_of,
    score_labels,
)
from selfie_adapters.evaluation.scoring.label_groups import label_sources
from selfie_adapters.evaluation.scoring.maximum_activations import check_width
from selfie_adapters.evaluation.scoring.negatives import (
    choose_nouns,
    negative_conversations,
    write_negatives,
)
from selfie_adapters.evaluation.scoring.results import compare_conditions, summarize
from selfie_adapters.evaluation.tables import Table, shown
from selfie_adapters.extras import require_extra
from selfie_adapters.files import existing_file, sha256
from selfie_adapters.inference.logit_lens import check_lens
from selfie_adapters.sources.labels.files import (
    SectionChoice,
    read_label_file,
    write_label_file,
)
from selfie_adapters.sources.labels.label_set import LabelSet
from selfie_adapters.sources.sae.encoder import LatentEncoder, open_encoder

TITLES = {
    "trained": "trained",
    "shuffled": "another's",
    "untrained": "untrained",
    "zero": "zero vector",
    "random": "random",
    "lens_words": "lens words",
    "training": "instrument check",
}
"""The given labels of the file are no rival: they show whether the instrument can tell labels
apart at all."""


class GenerationScoring(Protocol[ScoringSettings]):
    """With label_generation_only there are no scores: {condition}_labels.jsonl
    next to results.json can be scored later."""

    settings_class = ScoringSettings
    row = ScoringRow
    read_published = staticmethod(read_scoring_config)
    free = ("batch_size", "latents_at_once")
    recorded_as = "generation scoring"
    removed = MappingProxyType(
        {
            "foils": "its negatives are conversations about the labels of other latents; now they "
            "are one set for all conditions"
        }
    )

    @property
    def _scores(self) -> bool:
        return self.settings.evaluation_mode != "label_generation_only"

    def check(self) -> None:
        if self._scores:
            require_extra("sae", "selfie eval scoring")

    def inputs(self) -> dict[str, str]:
        """Raises DataError for latents without labels, and for an SAE of another layer."""
        settings = self.settings
        self._labels = _read_labels(settings)
        self._latents = _chosen(settings, self._labels)
        hashes = {name: sha256(file) for name, file in _files(settings).items()}
        self._wanted = self._possible(settings.wanted())
        self._encoder = None
        if self._scores or settings.vectors is None:
            device = self.model.device
            self._encoder = open_encoder(settings.sae, self._latents, settings.force_sae, device)
            if settings.sae_layer not in (None, self._encoder.layer):
                raise DataError(
                    f"{settings.sae}: an SAE of layer {self._encoder.layer}; the settings state "
                    f"layer {settings.sae_layer}. Correct one of them."
                )
            check_width(self.model, self._encoder)
            hashes["sae"] = self._encoder.digest()
        self._nouns: list[str] = []
        if self._scores and settings.negatives:
            of = self._labels or {}
            labels = [text for latent in self._latents for text in of.get(latent, ())]
            self._nouns = choose_nouns(labels, settings.negatives, settings.seed)
            hashes["negatives"] = digest_of(self._nouns)
        return hashes

    def _possible(self, wanted: list[str]) -> list[str]:
        """`wanted`, without the lens of a model that has none where nobody named it."""
        if "lens_words" in wanted:
            try:
                check_lens(self.model)
            except ModelError:
                if self.settings.conditions is not None:
                    raise
                return [name for name in wanted if name != "lens_words"]
        return wanted

    def measure(self) -> dict[str, Any]:
        settings, latents, model = self.settings, self._latents, self.model
        encoder = self._encoder
        others = others_of(len(latents), settings.seed)
        writing = Writing(
            settings.conversations,
            settings.conversation_tokens,
            settings.temperature,
            settings.top_p,
            settings.conversation_prompt,
            settings.conversation_system,
        )
        writer = self.chat(settings.writer, model) if self._scores else None
        scoring = Scoring(
            model,
            encoder,
            writer,
            writing,
            others,
            settings.seed,
            settings.batch_size,
            settings.latents_at_once,
            settings.token_activations,
            tuple(latents),
        )
        vectors = _vectors(settings, latents, encoder)
        sources = label_sources(settings, self._wanted, model, latents, vectors, self._labels or {})
        if self._nouns:
            write_negatives(scoring, self._nouns, self.folder, self.progress)
        score_labels(scoring, sources, self.folder, self.progress)
        if encoder is None or writer is None:
            _write_label_files(self.folder, self._wanted, latents)
            return {"latents": latents}
        negatives = negative_conversations(self.folder, len(self._nouns))
        conditions = summarize(
            self.folder.rows,
            self._wanted,
            latents,
            others,
            negatives,
            settings.thresholds,
            settings.seed,
        )
        about = {"kind": encoder.kind, "d_sae": encoder.d_sae, "layer": encoder.layer}
        return {
            "seeds": {"seed": settings.seed},
            "sae": {**about, "model": encoder.model},
            "writer": writer.name,
            "latents": latents,
            "negatives": {
                "nouns": self._nouns,
                "with_error": sum("error" in one for one in negatives),
            },
            "interval": "95 %, over latents; shares of hits: Wilson, else bootstrap; " + METHOD,
            "conditions": conditions,
            "comparisons": compare_conditions(conditions, settings.seed),
        }

    @classmethod
    def report(cls, results: Mapping[str, Any]) -> Iterator[Table | str]:
        settings, rows = results["settings"], []
        for name, found in results.get("conditions", {}).items():
            content = found["content"]["thresholds"][0]
            cells = [
                found["published"]["best_of_n"],
                content["best_of_1"],
                content["best_of_n_held_out"],
                content["false_positive_rate"],
                content["balanced_accuracy"],
                found["content"]["auroc"],
            ]
            rows.append([TITLES[name], *map(_two_lines, cells)])
        best = f"best of {len(settings['scales'])}"
        if rows:
            yield Table(
                "",
                ["labels", "published", "one label", best, "false", "balanced", "AUROC"],
                rows,
                {TITLES["trained"]},
                caption="means and 95 % intervals over latents; published: template tokens count "
                "too; best: chosen on half of the conversations, scored on the others; a hit is an "
                f"activation above {settings['thresholds'][0]:g}; instrument check: the labels of "
                "labels_file, which fire their latents if the measurement works",
                narrow=True,
            )
        for pair in results.get("comparisons", []):  # not in results of earlier releases
            if pair["measure"] == "balanced_accuracy":
                first, second = TITLES[pair["first"]], TITLES[pair["second"]]
                found = shown(pair["difference"], sign="+")
                yield f"{first} minus {second}, balanced accuracy: {found}, {p_text(pair)}"


def _two_lines(interval: dict[str, Any] | None) -> str:
    """Narrow enough for 80 columns."""
    if interval is None:
        return "–"
    return f"{interval['mean']:.2f}\n{interval['low']:.2f}–{interval['high']:.2f}"


def _files(settings: ScoringSettings) -> dict[str, Path]:
    """Files that the results depend on."""
    files = {"labels_file": settings.labels_file, "vectors": settings.vectors}
    found = {name: existing_file(path) for name, path in files.items() if path is not None}
    return {"adapter": find_adapter_file(settings.adapter), **found} if settings.adapter else found


def _read_labels(settings: ScoringSettings) -> dict[int, list[str]] | None:
    if settings.labels_file is None:
        return None
    section = SectionChoice(settings.labels_dataset, settings.labels_layer)
    found = read_label_file(settings.labels_file, section=section)
    keep = settings.split
    return {
        latent: texts
        for latent, texts in found.labels.items()
        if keep == "all" or found.splits.get(latent, keep) == keep
    }


def _chosen(settings: ScoringSettings, labels: dict[int, list[str]] | None) -> list[int]:
    """The latents under evaluation, in rising order."""
    latents = sorted(set(settings.latents if settings.latents is not None else labels or ()))
    if settings.limit is not None and settings.limit < len(latents):
        drawn = np.random.default_rng(settings.seed).permutation(latents)[: settings.limit]
        latents = sorted(drawn.tolist())
    if not latents:
        raise DataError(f"no latents: {settings.labels_file} has none in split {settings.split}.")
    if labels is not None and "training" in settings.wanted():
        without = [latent for latent in latents if latent not in labels]
        if without:
            raise DataError(
                f"latent {without[0]} has no label in {settings.labels_file} (split "
                f"{settings.split}). Exclude it, or exclude the condition training."
            )
    return latents


def _vectors(
    settings: ScoringSettings, latents: list[int], encoder: LatentEncoder | None
) -> Tensor | None:
    """The latents' vectors, [latents, d]; None where no condition needs them.

    Unit vectors if the settings ask for them; a zero vector stays zero.
    """
    if settings.vectors is not None:
        rows = open_vectors(settings.vectors)
        if latents[-1] >= len(rows):
            raise DataError(
                f"{settings.vectors}: {len(rows)} rows; latent {latents[-1]} has none. Give the "
                "vectors that belong to the labels."
            )
        found = rows[torch.tensor(latents)].float()
    elif encoder is not None:
        found = encoder.decoder
    else:
        return None
    return unit_norm(found) if settings.normalize_vectors else found


def _write_label_files(evaluation: EvaluationFolder, wanted: list[str], latents: list[int]) -> None:
    """{condition}_labels.jsonl, label files as `labels_file` reads them."""
    for name in wanted:
        texts = {
            latent: [label["text"] for label in evaluation.rows[f"{name}:{latent}"]["labels"]]
            for latent in latents
        }
        kept = {latent: [text for text in of if text] for latent, of in texts.items()}
        label_set = LabelSet({latent: of for latent, of in kept.items() if of})
        write_label_file(evaluation.folder / f"{name}_labels.jsonl", label_set)
