"""The scoring protocol: labels of every condition, conversations from them, hits, results.

Labels by the adapter are compared with those of the zero vector, random directions, plain vectors
without an adapter, words by logit lens, cosine and ridge probe, labels that begin as the latent's
own does, and the label file's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from selfie_adapters.config.evaluation.scoring import ScoringSettings
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.base import Protocol
from selfie_adapters.evaluation.comparing import METHOD
from selfie_adapters.evaluation.folder import EvaluationFolder, digest_of
from selfie_adapters.evaluation.published.scoring import read_scoring_config
from selfie_adapters.evaluation.scoring.conversations import Writing
from selfie_adapters.evaluation.scoring.generation import (
    Scoring,
    ScoringRow,
    others_of,
    score_labels,
)
from selfie_adapters.evaluation.scoring.known_labels import known_labels
from selfie_adapters.evaluation.scoring.label_groups import label_sources
from selfie_adapters.evaluation.scoring.latents import (
    LatentVectors,
    chosen_latents,
    given_labels,
    input_files,
    of_split,
)
from selfie_adapters.evaluation.scoring.maximum_activations import check_width
from selfie_adapters.evaluation.scoring.negatives import (
    choose_nouns,
    negative_conversations,
    write_negatives,
)
from selfie_adapters.evaluation.scoring.results import compare_conditions, summarize
from selfie_adapters.evaluation.scoring.tables import report
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.extras import require_extra
from selfie_adapters.files import sha256
from selfie_adapters.sources.labels.files import write_label_file
from selfie_adapters.sources.labels.label_set import LabelSet
from selfie_adapters.sources.sae.encoder import open_encoder


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
        self._given = given_labels(settings)
        self._labels = of_split(settings, self._given)
        self._latents = chosen_latents(settings, self._labels)
        hashes = {name: sha256(file) for name, file in input_files(settings).items()}
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
        self._vectors = LatentVectors(settings, self._encoder)
        self._known = known_labels(settings, self.model, self._latents, self._given, self._vectors)
        self._nouns: list[str] = []
        if self._scores and settings.negatives:
            of = self._labels or {}
            labels = [text for latent in self._latents for text in of.get(latent, ())]
            self._nouns = choose_nouns(labels, settings.negatives, settings.seed)
            hashes["negatives"] = digest_of(self._nouns)
        return hashes

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
        wanted, vectors = self._known.possible, self._vectors.of(latents)
        sources = label_sources(settings, wanted, model, latents, vectors, self._known.labels)
        if self._nouns:
            write_negatives(scoring, self._nouns, self.folder, self.progress)
        score_labels(scoring, sources, self.folder, self.progress)
        if encoder is None or writer is None:
            _write_label_files(self.folder, wanted, latents)
            return {"latents": latents, "not_measured": self._known.missing}
        negatives = negative_conversations(self.folder, len(self._nouns))
        conditions = summarize(
            self.folder.rows,
            wanted,
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
            "not_measured": self._known.missing,
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
        return report(results)


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
