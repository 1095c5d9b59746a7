"""Everything that decides the results of generation scoring; defaults are the published ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from selfie_adapters.config.labelling import UNTRAINED_SCALES
from selfie_adapters.config.shared import ChatSettings, ModelSettings
from selfie_adapters.config.types import InFile, Numbers, Seed
from selfie_adapters.errors import ConfigError

Cut = Literal["trimmed", "first_quote", "last_quote"]
ConditionName = Literal[
    "trained",
    "untrained",
    "zero",
    "random",
    "lens_words",
    "cosine_words",
    "ridge_words",
    "same_start",
    "training",
]


class ScoringSettings(ModelSettings):
    """Measure whether conversations written from a label activate the latent of the label.

    The defaults are the published protocol's.
    """

    evaluation_mode: Literal["label_generator", "label_dataset", "label_generation_only"] = (
        "label_generator"
    )
    """label_generator: labels by the adapter alongside all controls; label_dataset: the labels of
    labels_file alone; label_generation_only: labels by the adapter and of its controls, without
    conversations."""

    model: InFile = "demo"
    """Hub id, local folder, .gguf file, or demo."""

    template: str | None = None
    """The question about a vector, with the placeholder; null: the adapter's own, or the built-in
    one for the tokenizer."""

    placeholder: str | None = None
    """The token in `template` that the vector replaces."""

    vectors: InFile | None = None
    """Vector file whose rows are the latents' vectors; null: the SAE's decoder."""

    normalize_vectors: bool | None = None
    """Scales apply to unit vectors (true) or to vectors as they are (false), whatever the adapter's
    own normalization, which is off then; null: as the adapter does."""

    sae: InFile = "demo"
    """SAELens folder, release:sae_id, or demo."""

    force_sae: bool = False
    """Use an SAE that was trained on other states than this model's (processed weights, lost
    scaling factors)."""

    adapter: InFile | None = None
    """The adapter: a file, or the name of a shipped one such as demo; without one there is no
    condition that needs it."""

    sae_layer: int | None = None
    """Refuse an SAE of another layer than this."""

    labels_dataset: str | None = None
    """The section of labels_file with this dataset_name, where it has several."""

    labels_layer: int | None = None
    """The section of labels_file of this layer."""

    labels_file: InFile | None = None
    """Labels of the latents: any label file (docs/formats.md), or trained_labels.jsonl
    of a label_generation_only run."""

    training_labels: InFile | None = None
    """Label file of the latents that the ridge probe is fitted on: those of split train, or of a
    file without splits all, that are not evaluated; null: labels_file."""

    split: Literal["train", "val", "test", "all"] = "val"
    """Which latents of labels_file, if it has splits."""

    latents: Annotated[list[int] | None, Numbers] = None
    """Which latents; null: those of labels_file."""

    limit: int | None = Field(default=None, ge=1)
    """Take N of them, drawn by the seed; null: all."""

    conditions: list[ConditionName] | None = None
    """null: all that adapter and labels_file allow."""

    scales: Annotated[list[float], Numbers] = Field(
        default=[0.5, 0.8, 1.3, 2.1, 3.4, 5.5], min_length=1
    )
    """One label is written at each."""

    untrained_scales: Annotated[list[float], Numbers] = Field(
        default=list(UNTRAINED_SCALES), min_length=1
    )
    """The same for unit vectors without adapter."""

    untrained_scale_unit: Literal["embedding_norm", "absolute"] = "embedding_norm"
    """What untrained_scales count: mean embedding norms, or the vector's own length."""

    labels_per_scale: int = Field(default=1, ge=1)
    """Labels written at each scale."""

    labels_each_once: bool = False
    """Each label of labels_file gets its conversations once; false: as many labels per latent as
    there are scales, in turn, so that all conditions choose among equally many."""

    label_tokens: int = Field(default=30, ge=1)
    label_temperature: float = Field(default=0.7, ge=0)
    label_top_p: float = Field(default=0.9, gt=0, le=1)
    label_repetition_penalty: float = Field(default=1.0, gt=0)

    label_cut: Cut = "trimmed"
    """Where a label ends: trimmed (at the first quote, whitespace collapsed), first_quote or
    last_quote (whitespace kept; for the last one the model writes on after a quote)."""

    conversations: int = Field(default=10, ge=1)
    """Conversations a label."""

    conversation_prompt: str | None = None
    """The user turn that asks for a conversation, every _ in it replaced by the label; null: this
    project's own."""

    conversation_system: str | None = None
    """A system turn before conversation_prompt."""

    conversation_tokens: int = Field(default=100, ge=1)
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)

    writer: ChatSettings = ChatSettings()
    """Who writes the conversations; default: the evaluated model itself."""

    thresholds: Annotated[list[float], Numbers] = Field(default=[0.0], min_length=1)
    """A conversation hits if the latent's activation is above; in the SAE's units."""

    negatives: int = Field(default=50, ge=0)
    """Conversations about nouns that occur in no label of the latents, written once and measured at
    every latent in every condition: false positives."""

    token_activations: bool = False
    """Keep the latent's activation at every token of its conversations in rows.jsonl."""

    seed: Seed = 0
    latents_at_once: int = Field(default=8, ge=1)
    """How many latents' conversations are written together; a kill costs that many at most."""

    batch_size: int = Field(default=32, ge=1)
    """Conversations in one forward pass of the SAE's model."""

    @model_validator(mode="after")
    def _whole(self) -> ScoringSettings:
        if self.latents is None and self.labels_file is None:
            raise ValueError("give latents or labels_file, which choose the latents to evaluate")
        if (self.template is None) != (self.placeholder is None):
            raise ValueError("template and placeholder belong together; give both or neither")
        if self.conversation_system and self.conversation_prompt is None:
            raise ValueError("conversation_system needs conversation_prompt")
        return self

    def wanted(self) -> list[str]:
        """Conditions that the mode and the files allow. Raises ConfigError for one that is named
        and cannot be."""
        given = ["training"] if self.labels_file is not None else []
        alike = ["same_start"] if self.labels_file is not None else []
        written = ["trained", "zero", "random"] if self.adapter is not None else []
        controls = [*written, "untrained", "lens_words", "cosine_words", "ridge_words"]
        possible = {
            "label_dataset": given,
            "label_generation_only": controls,
            "label_generator": [*controls, *alike, *given],
        }[self.evaluation_mode]
        chosen = list(dict.fromkeys(self.conditions or possible))
        for name in chosen:
            if name not in possible:
                needs = ""
                if name in ("training", "same_start"):
                    needs = " and without labels_file"
                elif name in ("trained", "zero", "random"):
                    needs = " and without adapter"
                raise ConfigError(
                    f"conditions: {name} is not possible with evaluation_mode "
                    f"{self.evaluation_mode}{needs}. Possible: "
                    f"{', '.join(possible) or 'none'}."
                )
        if not chosen:
            raise ConfigError(f"evaluation_mode {self.evaluation_mode} needs labels_file.")
        return chosen
