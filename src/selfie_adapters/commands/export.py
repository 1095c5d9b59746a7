"""`selfie export`: a labelling run as one file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from selfie_adapters.commands.options import Overwrite, options
from selfie_adapters.config.export import ExportSettings
from selfie_adapters.extras import require_extra

NAMES = {
    "csv": "labels.csv",
    "parquet": "labels.parquet",
    "neuronpedia": "explanations.jsonl",
    "training": "training.json",
}


@options(ExportSettings)
def export(
    settings: ExportSettings, *, out: str | None = None, overwrite: Overwrite = False
) -> None:
    """Write the labels of a run as one file.

    Parameters
    ----------
    out
        File to write; default: one in the run folder.
    """
    from selfie_adapters.errors import ConfigError
    from selfie_adapters.files import check_free
    from selfie_adapters.labelling import export as formats

    if settings.format == "parquet":
        require_extra("export", "selfie export --format parquet")
    finished = formats.open_run(settings.run)
    path = Path(out) if out is not None else finished.folder / NAMES[settings.format]
    check_free(path, overwrite)
    if settings.format == "csv":
        count = formats.to_csv(finished, path)
    elif settings.format == "parquet":
        count = formats.to_parquet(finished, path)
    elif settings.format == "training":
        count = formats.to_training(finished, path, settings.layer)
    elif settings.model_id is None or settings.source_id is None:
        raise ConfigError(
            "the format neuronpedia needs --model-id and --source-id, Neuronpedia's names of the "
            "model and the SAE, such as llama3.1-8b and 19-llamascope-res-32k."
        )
    else:
        count = formats.to_neuronpedia(finished, path, settings.model_id, settings.source_id)
    console = Console()
    if finished.missing:
        console.print(
            f"the run is not complete: {finished.missing} of {finished.record.vectors} vectors "
            "are not exported. Run the same selfie label command again for the rest.",
            style="yellow",
            highlight=False,
        )
    console.print(f"{count} rows: {path}", highlight=False, markup=False)
