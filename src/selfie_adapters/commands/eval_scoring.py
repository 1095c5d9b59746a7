"""`selfie eval scoring`: do conversations written from a label fire the latent it is about?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator
from rich import box
from rich.console import Console
from rich.table import Table

from selfie_adapters.chat.settings import ChatSettings
from selfie_adapters.config_reading import Section
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.files import existing_file, sha256

if TYPE_CHECKING:
    from selfie_adapters.evaluation.folder import EvaluationFolder
    from selfie_adapters.evaluation.label_groups import LabelSource
    from selfie_adapters.model import FrozenModel
    from selfie_adapters.sources.sae_encoder import LatentEncoder

Condition = Literal["trained", "untrained", "zero", "random", "training"]


class Settings(Section):
    """The defaults are the published protocol's."""

    evaluation_mode: Literal["label_generator", "label_dataset", "label_generation_only"] = (
        "label_generator"
    )
    """label_generator: labels by the adapter beside all controls; label_dataset: the labels of
    labels_file alone; label_generation_only: labels by the adapter, no conversations."""

    model: str = "demo"
    """Hub id, folder, .gguf file, or demo."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    sae: str = "demo"
    """SAELens folder, release:sae_id, or demo."""

    force_sae: bool = False
    """Use an SAE that was trained on other states than this model's (processed weights, lost
    scaling factors)."""

    adapter: str | None = None
    """The adapter file; without one there is no condition that needs it."""

    labels_file: str | None = None
    """Labels of the latents: any label file (docs/formats.md), or trained_labels.jsonl
    of a label_generation_only run."""

    split: Literal["train", "val", "all"] = "val"
    """Which latents of labels_file, if it has splits."""

    latents: list[int] | None = None
    """Which latents; null: those of labels_file."""

    limit: int | None = Field(default=None, ge=1)
    """So many of them, drawn by the seed; null: all."""

    conditions: list[Condition] | None = None
    """null: all that adapter and labels_file allow."""

    scales: list[float] = Field(default=[0.5, 0.8, 1.3, 2.1, 3.4, 5.5], min_length=1)
    """One label is written at each."""

    untrained_scales: list[float] = Field(default=[1.0, 2.0, 3.0, 6.0, 12.0, 24.0], min_length=1)
    """The same for plain vectors without adapter."""

    label_tokens: int = Field(default=30, ge=1)
    label_temperature: float = Field(default=0.7, ge=0)
    label_top_p: float = Field(default=0.9, gt=0, le=1)

    conversations: int = Field(default=10, ge=1)
    """Conversations a label."""

    conversation_tokens: int = Field(default=100, ge=1)
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)

    writer: ChatSettings = ChatSettings()
    """Who writes the conversations; the evaluated model itself if left out."""

    thresholds: list[float] = Field(default=[0.0], min_length=1)
    """A conversation hits if the latent's activation is above; in the SAE's units."""

    foils: int = Field(default=5, ge=0)
    """Other latents that each conversation is measured at: false positives."""

    seed: int = 0
    latents_at_once: int = Field(default=8, ge=1)
    """How many latents' conversations are written together; a kill costs that many at most."""

    batch_size: int = Field(default=32, ge=1)
    """Conversations in one forward pass of the SAE's model."""

    @model_validator(mode="after")
    def _whole(self) -> Settings:
        if self.latents is None and self.labels_file is None:
            raise ValueError("latents or labels_file says which latents; give one")
        return self

    def wanted(self) -> list[str]:
        """Conditions that the mode and the files allow. Raises ConfigError for one that is named
        and cannot be."""
        given = ["training"] if self.labels_file is not None else []
        written = ["trained", "zero", "random"] if self.adapter is not None else []
        possible = {
            "label_dataset": given,
            "label_generation_only": [*written[:1], "untrained"],
            "label_generator": [*written, "untrained", *given],
        }[self.evaluation_mode]
        chosen = list(dict.fromkeys(self.conditions or possible))
        for name in chosen:
            if name not in possible:
                need = "labels_file" if name == "training" else "adapter"
                raise ConfigError(
                    f"conditions: {name} is not possible with evaluation_mode "
                    f"{self.evaluation_mode} and without {need}. Possible: "
                    f"{', '.join(possible) or 'none'}."
                )
        if not chosen:
            raise ConfigError(f"evaluation_mode {self.evaluation_mode} needs labels_file.")
        return chosen


# Changing these does not change the results.
FREE = ("batch_size", "latents_at_once")


def run(settings: Settings, folder: Path, console: Console) -> Path:
    """Score, print a table, and return the path of results.json."""
    wanted = settings.wanted()
    labels = _read_labels(settings)
    latents = _chosen(settings, labels)

    from selfie_adapters.chat import AnswerCache, open_chat
    from selfie_adapters.evaluation.folder import EvaluationFolder
    from selfie_adapters.evaluation.generation_scoring import Foils, Scoring, score_labels
    from selfie_adapters.evaluation.scoring_results import summarise
    from selfie_adapters.evaluation.writing import Writing
    from selfie_adapters.model import load_model
    from selfie_adapters.sources.sae_encoder import DEMO_SAE, open_encoder

    model = load_model(settings.model, settings.dtype)
    encoder = open_encoder(settings.sae, latents, settings.force_sae, model.device)
    sae_file = Path(DEMO_SAE if settings.sae == "demo" else settings.sae) / SAE_WEIGHTS
    inputs = {name: sha256(file) for name, file in _files(settings, sae_file).items()}
    evaluation = EvaluationFolder(
        folder, "generation scoring", settings.model_dump(mode="json"), inputs, FREE
    )
    foils = Foils.drawn(len(latents), settings.foils, settings.seed)
    writes = settings.evaluation_mode != "label_generation_only"
    writing = Writing(
        settings.conversations, settings.conversation_tokens, settings.temperature, settings.top_p
    )
    writer = AnswerCache(open_chat(settings.writer, model), folder / "answers") if writes else None
    scoring = Scoring(
        model,
        encoder,
        writer,
        writing,
        foils,
        settings.seed,
        settings.batch_size,
        settings.latents_at_once,
    )
    sources = _sources(settings, wanted, model, encoder, labels or {})
    with console.status("scoring") as status:
        score_labels(
            scoring,
            sources,
            evaluation,
            lambda name, done, all_: status.update(f"{name}: {done} of {all_} latents"),
        )
    if not writes:
        _write_label_files(evaluation, wanted, latents)
        return evaluation.finish({"latents": latents})
    conditions = summarise(
        evaluation.rows, wanted, latents, foils, settings.thresholds, settings.seed
    )
    console.print(_table(conditions, settings))
    about = {"kind": encoder.kind, "d_sae": encoder.d_sae, "layer": encoder.layer}
    return evaluation.finish(
        {
            "seeds": {"seed": settings.seed},
            "sae": {**about, "model": encoder.model},
            "writer": writer.name if writer else None,
            "latents": latents,
            "conditions": conditions,
        }
    )


SAE_WEIGHTS = "sae_weights.safetensors"


def _files(settings: Settings, sae_file: Path) -> dict[str, Path]:
    """What the results depend on besides the settings."""
    files = {"adapter": settings.adapter, "labels_file": settings.labels_file}
    found = {name: existing_file(path) for name, path in files.items() if path is not None}
    return found | ({"sae": sae_file} if sae_file.is_file() else {})


def _read_labels(settings: Settings) -> dict[int, list[str]] | None:
    if settings.labels_file is None:
        return None
    from selfie_adapters.sources.label_files import read_label_file

    found = read_label_file(settings.labels_file)
    keep = settings.split
    return {
        latent: texts
        for latent, texts in found.labels.items()
        if keep == "all" or found.splits.get(latent, keep) == keep
    }


def _chosen(settings: Settings, labels: dict[int, list[str]] | None) -> list[int]:
    """The latents under evaluation, in rising order."""
    import numpy as np

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
                f"{settings.split}). Leave it out, or leave out the condition training."
            )
    return latents


def _sources(
    settings: Settings,
    wanted: list[str],
    model: FrozenModel,
    encoder: LatentEncoder,
    labels: dict[int, list[str]],
) -> dict[str, LabelSource]:
    """Where each condition's labels come from."""
    import torch

    from selfie_adapters.adapters import load_adapter
    from selfie_adapters.dataset.controls import random_vectors
    from selfie_adapters.evaluation.controls import untrained_adapter
    from selfie_adapters.evaluation.label_groups import GivenLabels, LabelDrawing, WrittenLabels
    from selfie_adapters.labelling import Labeller

    how = LabelDrawing(settings.label_tokens, settings.label_temperature, settings.label_top_p)
    vectors = encoder.decoder
    drawn = {
        "trained": lambda: vectors,
        "zero": lambda: torch.zeros_like(vectors),
        "random": lambda: random_vectors(vectors, settings.seed),
    }
    sources: dict[str, LabelSource] = {}
    labeller = None
    if settings.adapter is not None and any(name in drawn for name in wanted):
        labeller = Labeller(model, load_adapter(settings.adapter))
    for name in wanted:
        if name == "training":
            given = [labels[latent] for latent in encoder.latents]
            sources[name] = GivenLabels(given, len(settings.scales))
        elif name == "untrained":
            plain = Labeller(
                model,
                untrained_adapter(model.d_model, 1.0),
                prompt=None if labeller is None else labeller.prompt.prompt,
            )
            sources[name] = WrittenLabels(
                plain, vectors, encoder.latents, settings.untrained_scales, how, settings.seed
            )
        elif labeller is not None:
            sources[name] = WrittenLabels(
                labeller, drawn[name](), encoder.latents, settings.scales, how, settings.seed
            )
    return sources


def _write_label_files(evaluation: EvaluationFolder, wanted: list[str], latents: list[int]) -> None:
    """{condition}_labels.jsonl, label files as `labels_file` reads them."""
    from selfie_adapters.sources.label_files import write_label_file
    from selfie_adapters.sources.label_set import LabelSet

    for name in wanted:
        texts = {
            latent: [label["text"] for label in evaluation.rows[f"{name}:{latent}"]["labels"]]
            for latent in latents
        }
        kept = {latent: [text for text in of if text] for latent, of in texts.items()}
        label_set = LabelSet({latent: of for latent, of in kept.items() if of})
        write_label_file(evaluation.folder / f"{name}_labels.jsonl", label_set)


_MEANING = {
    "trained": "trained",
    "shuffled": "another's",
    "untrained": "untrained",
    "zero": "zero vector",
    "random": "random",
    "training": "the file's",
}


def _table(conditions: dict[str, Any], settings: Settings) -> Table:
    """Means over their intervals; narrow enough for 80 columns."""
    table = Table(
        box=box.SIMPLE,
        pad_edge=False,
        collapse_padding=True,
        caption="means and 95 % intervals over latents; published: template tokens count too; "
        "best: chosen on half of the conversations, scored on the others; a hit is an activation "
        f"above {settings.thresholds[0]:g}",
    )
    best = f"best of {len(settings.scales)}"
    for column in ("labels", "published", "one label", best, "false", "balanced", "AUROC"):
        table.add_column(column)
    for name, found in conditions.items():
        content = found["content"]["thresholds"][0]
        table.add_row(
            _MEANING[name],
            _shown(found["published"]["best_of_n"]),
            _shown(content["best_of_1"]),
            _shown(content["best_of_n_held_out"]),
            _shown(content["false_positive_rate"]),
            _shown(content["balanced_accuracy"]),
            _shown(found["content"]["auroc"]),
        )
    return table


def _shown(interval: dict[str, Any] | None) -> str:
    if interval is None:
        return "–"
    return f"{interval['mean']:.2f}\n{interval['low']:.2f}–{interval['high']:.2f}"
