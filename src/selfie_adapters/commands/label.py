"""`selfie label`: vectors in, labels out."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from selfie_adapters.files import atomic_path


def label(
    vectors: str,
    *,
    adapter: str,
    model: str,
    out: str,
    split: Literal["train", "val", "all"] = "all",
    limit: int | None = None,
    scales: Annotated[list[float] | None, Parameter(consume_multiple=True, negative=())] = None,
    samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_new_tokens: int = 30,
    seed: int = 0,
    batch_size: int = 64,
    dtype: str = "auto",
    ignore_binding: bool = False,
) -> None:
    """Label vectors with a trained adapter, one JSON line a label.

    Parameters
    ----------
    vectors
        Training file (.json, .json.gz), or vectors alone (.pt, .safetensors, .npy).
    adapter
        Adapter file.
    model
        Hub id, local folder, .gguf file, or demo.
    out
        JSON lines file to write.
    split
        Which vectors of a training file.
    limit
        Only the first so many.
    scales
        Numbers that the adapter's input is multiplied by; every vector gets a label for each.
    samples
        Labels a vector and scale.
    temperature
        0 is greedy.
    top_p
        Draw from the most likely tokens that make up this share.
    max_new_tokens
        Longest label, in tokens.
    seed
        Makes each row's own seed, together with its place.
    batch_size
        Rows at a time; changes nothing but the speed.
    dtype
        Number format of the model: auto, bfloat16, float16, float32.
    ignore_binding
        Go on although the adapter was trained with another model or prompt.
    """
    from dataclasses import asdict

    from rich.progress import Progress

    from selfie_adapters.adapters import load_adapter
    from selfie_adapters.dataset import read_label_source
    from selfie_adapters.labelling import Labeller
    from selfie_adapters.model import load_model

    source = read_label_source(vectors, split)
    count = len(source) if limit is None else min(limit, len(source))
    loaded = load_adapter(adapter)
    labeller = Labeller(load_model(model, dtype), loaded, check=not ignore_binding)
    console = Console()
    wanted = scales or [1.0]
    written = 0
    with (
        atomic_path(out) as temporary,
        temporary.open("w", encoding="utf-8") as file,
        Progress(console=console, transient=True) as progress,
    ):
        task = progress.add_task("labels", total=count * len(wanted) * samples)
        for start in range(0, count, batch_size):
            stop = min(start + batch_size, count)
            answers = labeller.label(
                source.vectors(start, stop),
                wanted,
                samples,
                temperature,
                top_p,
                max_new_tokens,
                seed,
                batch_size,
                first_index=start,
                progress=lambda rows: progress.advance(task, rows),
            )
            for place, labels in enumerate(answers, start=start):
                for answer in labels:
                    row = {**source.identity(place), **asdict(answer)}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    written += 1
    console.print(f"{written} labels for {count} vectors: {out}", highlight=False, markup=False)
