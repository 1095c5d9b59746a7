"""Labels of vectors, made for an evaluation that may be killed and resumes where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from torch import Tensor

from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.inference.sampling import Sampling
from selfie_adapters.labelling import Labeller

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""


class SpokenRow(msgspec.Struct):
    """The labels of one batch of vectors, one each."""

    labels: list[str]


def silent(_what: str, _done: int, _of: int) -> None:
    """Nobody looks."""


def speak(
    folder: EvaluationFolder,
    labeller: Labeller,
    condition: str,
    vectors: Tensor,
    keys: Sequence[str],
    scale: float,
    sampling: Sampling,
    seed: int,
    batch_size: int,
    progress: Progress = silent,
) -> list[str]:
    """One label per vector: vectors [n, d_model], keys of the n.

    Kept in `folder` batch by batch, under the condition's name, the scale and the batch's number:
    a batch is whole or missing, so the labels after a kill are those of one go.
    """
    said: list[str] = []
    for number, start in enumerate(range(0, len(keys), batch_size)):
        progress(condition, start, len(keys))
        stop = min(start + batch_size, len(keys))
        unit = f"{condition} × {scale:g}/{number}"
        if unit not in folder.rows:
            answers = labeller.label(
                vectors[start:stop],
                (scale,),
                sampling=sampling,
                seed=seed,
                batch_size=batch_size,
                names=[(key,) for key in keys[start:stop]],
            )
            folder.add(unit, {"labels": [labels[0].text for labels in answers]})
        texts = folder.rows[unit]["labels"]
        if len(texts) != stop - start:
            raise folder.damaged(unit, f"has {len(texts)} labels; {stop - start} are expected")
        said.extend(texts)
    progress(condition, len(keys), len(keys))
    return said
