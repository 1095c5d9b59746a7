"""Labels of vectors, made for an evaluation that may be killed and resumes where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from torch import Tensor

from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.labelling import Labeller

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


class SpokenRow(msgspec.Struct):
    """The labels of one batch of vectors, one each."""

    labels: list[str]


def silent(_what: str, _done: int, _of: int) -> None:
    """Nobody looks."""


@dataclass(frozen=True)
class Drawing:
    """How a label is drawn. temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 30
    seed: int = 0
    batch_size: int = 64


def speak(
    folder: EvaluationFolder,
    labeller: Labeller,
    condition: str,
    vectors: Tensor,
    keys: Sequence[str],
    scale: float,
    how: Drawing,
    progress: Progress = silent,
) -> list[str]:
    """One label per vector: vectors [n, d_model], keys of the n.

    Kept in `folder` batch by batch, under the condition's name, the scale and the batch's number:
    a batch is whole or missing, so the labels after a kill are those of one go.
    """
    said: list[str] = []
    for number, start in enumerate(range(0, len(keys), how.batch_size)):
        progress(condition, start, len(keys))
        stop = min(start + how.batch_size, len(keys))
        unit = f"{condition} × {scale:g}/{number}"
        if unit not in folder.rows:
            answers = labeller.label(
                vectors[start:stop],
                (scale,),
                1,
                how.temperature,
                how.top_p,
                how.max_new_tokens,
                how.seed,
                how.batch_size,
                names=[(key,) for key in keys[start:stop]],
            )
            folder.add(unit, {"labels": [labels[0].text for labels in answers]})
        texts = folder.rows[unit]["labels"]
        if len(texts) != stop - start:
            raise folder.damaged(unit, f"has {len(texts)} labels; {stop - start} are expected")
        said.extend(texts)
    progress(condition, len(keys), len(keys))
    return said
