"""Published scoring configurations, in this project's own settings.

A published file is known by its keys. It is translated here and nowhere else, so that there is one
protocol; `published_results` writes its result files in the published format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from selfie_adapters.config.evaluation.scoring import ConditionName, ScoringSettings
from selfie_adapters.config.settings import Settings, beside, changed, read_config, top_level_keys
from selfie_adapters.dataset.document import RawSection, read_raw_sections
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.base import Published

MARKS = {"model_config", "reward_config", "master_json_path", "label_generator_config"}
_DEFAULT_FOLDER = "/sae-data"  # the published cloud volume: the current folder in a local run
_LLAMA_PROMPT = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
    'What is the meaning of "<|reserved_special_token_0|>"?<|eot_id|>'
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
    'The meaning of "<|reserved_special_token_0|>" is "'
)


class ModelConfig(Settings):
    name: str = "meta-llama/Meta-Llama-3.1-8B-Instruct"
    sae_release: str = "goodfire-llama-3.1-8b-instruct"
    sae_id: str = "layer_19"
    sae_layer_number: int = Field(default=19, ge=0)
    device: str | None = None
    """Without the key this project's own choice: the first GPU, else the CPU."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"


class RewardConfig(Settings):
    conversation_prompt_template: str | None = None
    conversation_system_message: str | None = None
    use_chat_template: bool = True
    max_new_tokens: int = Field(default=100, ge=1)
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    do_sample: bool = True
    aggressive_memory_cleanup: bool = True
    """Without effect on results, like the next two."""
    num_debug_samples: int = 4
    full_debug_mode: bool = False


class LabelGeneratorConfig(Settings):
    num_soft_tokens: int = 1
    template: str = _LLAMA_PROMPT
    reserved_token: str = "<|reserved_special_token_0|>"
    max_generation_length: int = Field(default=30, ge=1)
    which_vector: Literal["decoder", "encoder"] = "decoder"
    """Without effect: the vectors are those of the training file."""
    adapter_checkpoint_path: str | None = None
    normalize_vectors: bool = True
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    do_sample: bool = True
    repetition_penalty: float = Field(default=1.0, gt=0)
    strip_last_quote: bool = True

    @field_validator("num_soft_tokens")
    @classmethod
    def _one(cls, value: int) -> int:
        if value != 1:
            raise ValueError("one soft token is written per vector, so only 1 is possible")
        return value


class PublishedScoring(Settings):
    evaluation_mode: Literal["label_dataset", "label_generator", "label_generation_only"] = (
        "label_dataset"
    )
    run_id: str | None = None
    llm: ModelConfig = Field(alias="model_config")
    reward: RewardConfig = Field(alias="reward_config")
    generator: LabelGeneratorConfig | None = Field(default=None, alias="label_generator_config")
    master_json_path: str
    master_json_dataset_name: str
    master_json_layer: int
    master_json_split: Literal["train", "val", "test", "all"] = "val"
    data_volume_path: str = _DEFAULT_FOLDER
    max_latents: int | None = Field(default=None, ge=1)
    specific_latent_indices: list[int] | None = None
    scale_values: list[float] = Field(default=[1.0], min_length=1)
    num_labels_per_scale: int = Field(default=1, ge=1)
    num_reward_samples: int = Field(default=1, ge=1)
    label_generation_batch_size: int = Field(default=32, ge=1)
    reward_evaluation_batch_size: int = Field(default=16, ge=1)
    checkpoint_every_n_latents: int = Field(default=100, ge=1)
    num_parallel_instances: int = Field(default=1, ge=1)
    """Shards of a cloud run; a local run is one."""
    output_volume_path: str = "/results"
    """Folder of a cloud run; a local one writes to --out."""

    @field_validator("run_id")
    @classmethod
    def _part_of_a_name(cls, value: str | None) -> str | None:
        if value is not None and (not value or {"/", "\\", "\0"} & {*value}):
            raise ValueError("it goes into file names: some characters, none of them / or \\")
        return value

    @model_validator(mode="after")
    def _possible(self) -> PublishedScoring:
        if self.evaluation_mode != "label_dataset" and self.generator is None:
            raise ValueError(f"{self.evaluation_mode} needs label_generator_config")
        if self.evaluation_mode != "label_generation_only" and not self.reward.use_chat_template:
            raise ValueError(
                "reward_config.use_chat_template: false is not possible where conversations are "
                "written: they are read in the model's chat format"
            )
        return self


@dataclass(frozen=True)
class TranslatedScoring(Published):
    """A published configuration: this project's settings, and what its result files repeat."""

    published: PublishedScoring
    settings: ScoringSettings
    latents: list[int]
    """In the order of the training file."""

    @property
    def condition(self) -> ConditionName:
        """The one condition that a published run measures."""
        assert self.settings.conditions is not None
        return self.settings.conditions[0]

    def write(self, folder: Path) -> list[Path]:
        # Not imported above: that module is about this class.
        from selfie_adapters.evaluation.published.results import write_published_results

        return write_published_results(self, folder)


def read_scoring_config(
    path: str | Path, overrides: Sequence[str] = (), given: Mapping[str, Any] | None = None
) -> Any:
    """ScoringSettings from a file of this project's, TranslatedScoring from a published one.

    overrides are keys of the file's own form; given are values of this project's settings that
    replace those of either. Raises MissingFileError, ConfigError, and DataError
    for a training file that has nothing of what is asked for.
    """
    if not MARKS & top_level_keys(path, ScoringSettings):
        return read_config(path, ScoringSettings, overrides, given=given)
    found = translate(read_config(path, PublishedScoring, overrides), path)
    return replace(found, settings=changed(found.settings, given))


def translate(published: PublishedScoring, config_file: str | Path) -> TranslatedScoring:
    """This project's settings for a published configuration; raises as `read_scoring_config`."""
    master = beside(config_file, published.master_json_path)
    section = _section(master, published)
    latents = _latents(master, section, published)
    writes = published.evaluation_mode != "label_dataset"
    llm, reward, generator = published.llm, published.reward, published.generator
    values: dict[str, Any] = {
        "evaluation_mode": published.evaluation_mode,
        "model": llm.name,
        "dtype": llm.dtype,
        "device": llm.device,
        "sae": _sae(config_file, llm),
        "sae_layer": llm.sae_layer_number,
        "latents": latents,
        "conversations": published.num_reward_samples,
        "conversation_tokens": reward.max_new_tokens,
        "temperature": reward.temperature if reward.do_sample else 0.0,
        "top_p": reward.top_p,
        "conversation_prompt": reward.conversation_prompt_template,
        "conversation_system": reward.conversation_system_message or None,
        "token_activations": True,
        "negatives": 0,  # no published score has any
        "batch_size": published.reward_evaluation_batch_size,
        "writer": {"batch_size": published.reward_evaluation_batch_size},
    }
    if not writes:
        values |= {
            "conditions": ["training"],
            "labels_file": master,
            "labels_dataset": published.master_json_dataset_name,
            "labels_layer": published.master_json_layer,
            "split": published.master_json_split,
            "labels_each_once": True,
            "latents_at_once": published.checkpoint_every_n_latents,
        }
    elif generator is not None:
        adapter = generator.adapter_checkpoint_path
        scales = published.scale_values
        rows = len(scales) * published.num_labels_per_scale
        at_once = max(1, published.label_generation_batch_size // rows)
        values |= {
            "conditions": ["untrained" if adapter is None else "trained"],
            "adapter": None if adapter is None else beside(config_file, adapter),
            "vectors": _vector_file(config_file, master, section, published),
            "normalize_vectors": generator.normalize_vectors,
            "template": generator.template,
            "placeholder": generator.reserved_token,
            "untrained_scales" if adapter is None else "scales": scales,
            "untrained_scale_unit": "absolute",
            "labels_per_scale": published.num_labels_per_scale,
            "label_tokens": generator.max_generation_length,
            "label_temperature": generator.temperature if generator.do_sample else 0.0,
            "label_top_p": generator.top_p,
            "label_repetition_penalty": generator.repetition_penalty,
            "label_cut": "last_quote" if generator.strip_last_quote else "first_quote",
            "latents_at_once": min(published.checkpoint_every_n_latents, at_once),
        }
    return TranslatedScoring(published, ScoringSettings.model_validate(values), latents)


def _section(master: str, published: PublishedScoring) -> RawSection:
    """The first section with the name and layer; labels whose vectors are elsewhere are fine."""
    sections, found = read_raw_sections(master, needs_filename=False)
    if found:
        raise DataError(f"{master}, {found[0]}")
    wanted = (published.master_json_dataset_name, published.master_json_layer)
    known = [(s.metadata["dataset_name"], s.metadata["layer"]) for s in sections]
    if wanted not in known:
        listed = ", ".join(f"{name} (layer {layer})" for name, layer in known[:8])
        raise ConfigError(
            f"master_json_dataset_name {wanted[0]} with master_json_layer {wanted[1]}: no such "
            f"section in {master}. It has {listed}."
        )
    return sections[known.index(wanted)]


def _latents(master: str, section: RawSection, published: PublishedScoring) -> list[int]:
    """Latents of the split in file order: the chosen ones, or the first max_latents."""
    split = published.master_json_split
    found = [item.index for item in section.items if split in ("all", item.split)]
    if published.specific_latent_indices is not None:
        chosen = {*published.specific_latent_indices}
        found = [latent for latent in found if latent in chosen]
    elif published.max_latents is not None:
        found = found[: published.max_latents]
    if not found:
        only = " among specific_latent_indices" if published.specific_latent_indices else ""
        raise DataError(
            f"{master}: section {published.master_json_dataset_name} has no latent of the split "
            f"{split}{only}. Change master_json_split or specific_latent_indices."
        )
    return found


def _vector_file(
    config_file: str | Path, master: str, section: RawSection, published: PublishedScoring
) -> str:
    """The section's vectors: its filename in data_volume_path, wherever the training file is."""
    name = section.metadata.get("filename")
    if name is None:
        raise DataError(
            f"{master}: section {published.master_json_dataset_name} has labels only; there is no "
            "filename of vectors, for which labels could be written."
        )
    folder = published.data_volume_path
    return beside(config_file, str(Path("." if folder == _DEFAULT_FOLDER else folder) / name))


def _sae(config_file: str | Path, llm: ModelConfig) -> str:
    """release:sae_id, or the folder where the release is one on this machine."""
    folder = Path(beside(config_file, llm.sae_release))
    if not folder.is_dir():
        return f"{llm.sae_release}:{llm.sae_id}"
    inner = folder / llm.sae_id
    return str(inner if llm.sae_id and inner.is_dir() else folder)
