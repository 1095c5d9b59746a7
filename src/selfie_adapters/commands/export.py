"""`selfie export`: a labelling run as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from selfie_adapters.extras import require_extra

NAMES = {
    "csv": "labels.csv",
    "parquet": "labels.parquet",
    "neuronpedia": "explanations.jsonl",
    "training": "training.json",
}


def export(
    run: str,
    *,
    form: Annotated[
        Literal["csv", "parquet", "neuronpedia", "training"], Parameter(name="--format")
    ],
    out: str | None = None,
    model_id: str | None = None,
    source_id: str | None = None,
    layer: int | None = None,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Write the labels of a run as one file.

    Parameters
    ----------
    run
        Folder that selfie label wrote.
    form
        csv and parquet hold every row; neuronpedia (explanation rows) and training (a file for
        selfie train) the best label of each vector, without blank ones and "no concept".
    out
        File to write; default: one in the run folder.
    model_id
        neuronpedia: its name of the model, such as llama3.1-8b.
    source_id
        neuronpedia: its name of the SAE, such as 19-llamascope-res-32k.
    layer
        training: zero-based block the vectors are from, where the run does not know.
    overwrite
        Replace the file if it exists.
    """
    from selfie_adapters.errors import ConfigError
    from selfie_adapters.files import check_free
    from selfie_adapters.labelling import export as formats

    if form == "parquet":
        require_extra("export", "selfie export --format parquet")
    finished = formats.open_run(run)
    path = Path(out) if out is not None else finished.folder / NAMES[form]
    check_free(path, overwrite)
    if form == "csv":
        count = formats.to_csv(finished, path)
    elif form == "parquet":
        count = formats.to_parquet(finished, path)
    elif form == "training":
        count = formats.to_training(finished, path, layer)
    elif model_id is None or source_id is None:
        raise ConfigError(
            "the format neuronpedia needs --model-id and --source-id, Neuronpedia's names of the "
            "model and the SAE, such as llama3.1-8b and 19-llamascope-res-32k."
        )
    else:
        count = formats.to_neuronpedia(finished, path, model_id, source_id)
    console = Console()
    if finished.missing:
        console.print(
            f"the run is not complete: {finished.missing} of {finished.record.vectors} vectors "
            "are not exported. Run the same selfie label command again for the rest.",
            style="yellow",
            highlight=False,
        )
    console.print(f"{count} rows: {path}", highlight=False, markup=False)
