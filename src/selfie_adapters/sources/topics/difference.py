"""Differences of two models: what a fine-tune changed, as vectors that can be labelled.

At one block and one position of every prompt, states of one model minus those of the other: each
prompt's difference, and their mean over all prompts, in which what the prompts are about cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from selfie_adapters.config.types import Chat
from selfie_adapters.dataset import Item, Section, save_dataset
from selfie_adapters.errors import DataError, ModelError
from selfie_adapters.files import check_free
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.tokens import begun_ids
from selfie_adapters.model.user_text import UserText
from selfie_adapters.sources.topics.reading import topic_vectors


@dataclass(frozen=True)
class Change:
    """How much the models differ at one block and position.

    mean_norm: L2 norm of the mean difference. norm: mean L2 norm of a prompt's difference.
    relative: that norm, divided by the mean norm of the subtracted model's states. agreement: mean
    cosine between a prompt's difference and the sum of the other prompts' differences, 1 where all
    prompts are changed alike, about 0 where each is changed in its own way; None for one prompt.
    """

    layer: int
    position: int
    mean_norm: float
    norm: float
    relative: float
    agreement: float | None


def difference_files(
    out: str | Path, layers: Sequence[int], positions: Sequence[int], overwrite: bool
) -> list[Path]:
    """The files that `write_differences` writes. Raises ConfigError if one exists, unless it may be
    replaced."""
    path = Path(out)
    names = [_vectors_name(path, layer, at) for at in positions for layer in layers]
    files = [path, *(path.parent / name for name in names)]
    for file in files:
        check_free(file, overwrite)
    return files


def formatted(model: FrozenModel, prompts: Sequence[str], chat: Chat) -> list[str]:
    """Prompts in the chat format of `model`. Raises PromptError (`UserText.text`)."""
    turns = UserText(model.tokenizer, chat)
    return [turns.text(prompt) for prompt in prompts]


def check_tokens(
    model: FrozenModel, minus: PreTrainedTokenizerBase, texts: Sequence[str], name: str
) -> None:
    """Raise ModelError unless `minus`, the tokenizer of the model `name`, reads `texts` as `model`
    does."""
    rows = zip(begun_ids(model.tokenizer, texts), begun_ids(minus, texts), strict=True)
    for number, (mine, others) in enumerate(rows):
        if mine != others:
            pairs = enumerate(zip(mine, others, strict=False))
            at = next((i for i, (a, b) in pairs if a != b), min(len(mine), len(others)))
            raise ModelError(
                f"prompt {number}: the tokens of {model.name} and {name} differ from token {at} "
                "on, so their states are not of the same text. Give two versions of one model with "
                "one tokenizer."
            )


def states_of(
    model: FrozenModel,
    texts: Sequence[str],
    layers: Sequence[int],
    positions: Sequence[int],
    progress: Callable[[int], None] = lambda _done: None,
) -> Tensor:
    """Outputs of blocks `layers` at `positions`: [positions, prompts, layers, d_model], float32.

    progress: called with the states captured. Raises what `topic_vectors` raises.
    """
    return torch.stack([topic_vectors(model, texts, layers, at, progress) for at in positions])


def write_differences(
    out: str | Path,
    states: Tensor,
    subtracted: Tensor,
    prompts: Sequence[str],
    layers: Sequence[int],
    positions: Sequence[int],
    facts: dict[str, Any],
    overwrite: bool = False,
) -> list[Change]:
    """Write `states` - `subtracted` as a training file with a section per block and position.

    states, subtracted: [positions, prompts, layers, d_model], as `states_of` returns them. Row 0
    of a section is the mean over prompts, row n + 1 the difference at prompt n, whose label is the
    prompt. All have the split "test": they are to be labelled, not trained on. facts: metadata of
    every section, such as the models' names. Returns how much the models differ. Raises DataError,
    and writes nothing, for states of two widths, where a difference is NaN or infinite, and where
    all of a section are zero.
    """
    if states.shape != subtracted.shape:
        raise DataError(
            f"the models' states have the widths {states.shape[-1]} and {subtracted.shape[-1]}: "
            "they cannot be subtracted. Give two versions of one model."
        )
    path = Path(out)
    sections: list[Section] = []
    changes: list[Change] = []
    for row, position in enumerate(positions):
        for column, layer in enumerate(layers):
            before = subtracted[row, :, column]
            differences = states[row, :, column] - before
            _check(differences, layer, position)
            change = _change(differences, before, layer, position)
            changes.append(change)
            metadata = {
                "dataset_name": _at(path, position),
                "filename": _vectors_name(path, layer, position),
                "layer": layer,
                "source": "difference",
                "vector_type": "difference",
                **facts,
                "position": position,
                "change": asdict(change),
                # No mean of either model's states belongs on a difference.
                "mean_file": "states of the subtracted model",
            }
            vectors = torch.cat([differences.mean(dim=0, keepdim=True), differences])
            labels = [f"mean of {len(prompts)} prompts", *prompts]
            items = [
                Item(index, [labels[index]], "test")
                for index in vectors.any(dim=1).nonzero().flatten().tolist()
            ]
            sections.append(Section(metadata, vectors, items))
    save_dataset(path, sections, overwrite)
    return changes


def _check(differences: Tensor, layer: int, position: int) -> None:
    where = f"layer {layer}, position {position}"
    bad = (~differences.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise DataError(
            f"{where}: the difference at prompt {bad[0]} holds NaN or infinity. Use another dtype "
            "(--dtype float32)."
        )
    if not differences.any():
        raise DataError(
            f"{where}: the models' states are the same. What was changed comes after this block, "
            "or the models are the same. Choose later layers or other models."
        )


def _change(differences: Tensor, before: Tensor, layer: int, position: int) -> Change:
    """differences, before: [prompts, d_model]."""
    norms = differences.norm(dim=1)
    others = differences.sum(dim=0) - differences
    agreement = None
    if len(differences) > 1:
        agreement = float(torch.nn.functional.cosine_similarity(differences, others).mean())
    return Change(
        layer,
        position,
        float(differences.mean(dim=0).norm()),
        float(norms.mean()),
        float(norms.mean() / before.norm(dim=1).mean()),
        agreement,
    )


def _name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".json")


def _at(path: Path, position: int) -> str:
    return f"{_name(path)}_at_{position}"


def _vectors_name(path: Path, layer: int, position: int) -> str:
    return f"{_name(path)}_l{layer}_at_{position}.safetensors"
