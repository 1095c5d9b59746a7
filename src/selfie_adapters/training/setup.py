"""What a run is made of, checked and put together before the first step."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

import torch

from selfie_adapters.adapters import KINDS, Adapter, create_adapter
from selfie_adapters.config import SoftPromptSection, TrainConfig
from selfie_adapters.dataset import VectorLabelDataset, load_dataset
from selfie_adapters.dataset.captured import Captured
from selfie_adapters.errors import DataError
from selfie_adapters.inference.label_batches import check_labels
from selfie_adapters.inference.label_loss import Objective
from selfie_adapters.model import BoundPrompt, FrozenModel, SoftPrompt, bind, load_model
from selfie_adapters.model.compiled import compile_if_worth
from selfie_adapters.model.limits import check_prompt
from selfie_adapters.model.prefix import WholePrompt
from selfie_adapters.model.prompt import choose_prompt
from selfie_adapters.model.recompute import recompute_blocks
from selfie_adapters.model.suitable import check_model
from selfie_adapters.training.epochs import SplitExamples, TrainingOrder, read_split
from selfie_adapters.training.ranks import Ranks


@dataclass(frozen=True)
class Setup:
    """A configuration with everything it names. The adapter is at its initial values."""

    config: TrainConfig
    model: FrozenModel
    prompt: BoundPrompt
    adapter: Adapter
    train: SplitExamples
    val: SplitExamples
    order: TrainingOrder
    objective: Objective
    unsmoothed: Objective  # for validation and for choosing a start


def set_up(
    config: TrainConfig,
    model: FrozenModel | None,
    dataset: VectorLabelDataset | None,
    ranks: Ranks,
    training: bool = True,
) -> Setup:
    """Load and check what `config` names; model and dataset may be loaded already.

    training False: only to be measured, so nothing is compiled.

    Raises ConfigError for a setting that cannot be met, DataError for data that does not fit.
    """
    dataset = dataset or load_dataset(config.data.labels_file)
    if model is None:
        model = _configured_model(config, ranks)
    check_model(model)
    if dataset.d_model != model.d_model:
        raise DataError(
            f"{config.data.labels_file}: vectors of width {dataset.d_model}; the model "
            f"{model.name} has d_model {model.d_model}. Use the model the vectors come from."
        )
    prompt = bound_prompt(config, model)
    check_prompt(model, prompt)
    train, val = (
        read_split(dataset, which, model.tokenizer, prompt.end_id, config.data.strip_labels)
        for which in ("train", "val")
    )
    for split in (train, val):
        check_labels(model, prompt, split.tokens, split.examples.labels)
    if not len(train):
        raise DataError(f'{config.data.labels_file}: no vector has the split "train".')
    order = TrainingOrder(train, config)
    adapter = new_adapter(config, model)
    trained_on = torch.unique(train.examples.section[order.members()]).tolist()
    sections = [dataset.sections[number] for number in trained_on]
    layers = {section.layer for section in sections}
    captured = asdict(Captured.by_sections(sections))
    bound = bind(model, prompt, layers.pop() if len(layers) == 1 else None)
    adapter.binding = bound.model_copy(update=captured)
    if config.model.enable_gradient_checkpointing:
        recompute_blocks(model)
        prompt = WholePrompt.of(prompt)
    settings = config.training
    if training:
        per_label = len(prompt.suffix_ids) + float(train.tokens.lengths.float().mean())
        compile_if_worth(model, order.total_examples * per_label)
    objective = Objective(model, prompt, settings.label_smoothing, settings.max_loss)
    unsmoothed = Objective(model, prompt, max_loss=settings.max_loss)
    return Setup(config, model, prompt, adapter, train, val, order, objective, unsmoothed)


def new_adapter(config: TrainConfig, model: FrozenModel) -> Adapter:
    """The configured adapter at its initial values, on the model's device."""
    projection = config.projection
    # Published configurations name a rank for kinds that have none.
    rank = projection.low_rank_rank if KINDS[projection.type].takes_rank else None
    adapter = create_adapter(
        projection.type,
        model.d_model,
        normalize_input=projection.normalize_input,
        init_scale=projection.init_scale,
        low_rank_rank=rank,
        low_rank_init_factor=projection.low_rank_init_factor,
        seed=config.seed,
    )
    return adapter.to(model.device)


def bound_prompt(config: TrainConfig, model: FrozenModel) -> BoundPrompt:
    """The configured prompt as token ids."""
    prompt = configured_prompt(config.soft_prompt, config.data.eos_token, model)
    return prompt.bind(model.tokenizer)


def configured_prompt(
    section: SoftPromptSection, eos_token: str | None, model: FrozenModel
) -> SoftPrompt:
    """The prompt that `section` names, or the built-in one for this tokenizer."""
    given = section.template, section.reserved_token
    return choose_prompt(model.tokenizer, *given, end=eos_token).prompt


def _configured_model(config: TrainConfig, ranks: Ranks) -> FrozenModel:
    section = config.model
    place = section.device_map
    if ranks.size > 1 and place is None and torch.cuda.is_available():
        place = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    quantize = "8bit" if section.load_in_8bit else "4bit" if section.load_in_4bit else None
    return load_model(section.name, section.dtype, place, quantize, job="training")
