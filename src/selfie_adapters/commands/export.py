"""`selfie export`: a labelling run in the formats of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from selfie_adapters.commands.options import Overwrite, options
from selfie_adapters.config.commands import ExportSettings
from selfie_adapters.extras import require_extra

if TYPE_CHECKING:
    from selfie_adapters.labelling.finished_run import FinishedRun

NAMES = {
    "csv": "labels.csv",
    "parquet": "labels.parquet",
    "training": "training.json",
    "neuronpedia": "explanations.jsonl",
    "neuronpedia-upload": "features.jsonl",
    "neuronpedia-vectors": "vectors.jsonl",
    "neuronpedia-admin": "autointerp.json",
    "delphi": "delphi",
    "saebench": "explanations_override.json",
    "nla": "labels.nla.parquet",
}


@options(ExportSettings)
def export(
    settings: ExportSettings, *, out: str | None = None, overwrite: Overwrite = False
) -> None:
    """Write the labels of a run for spreadsheets, training, Neuronpedia or other programs.

    Parameters
    ----------
    out
        File to write, of delphi a folder; default: one in the run folder.
    """
    from selfie_adapters.files import check_free
    from selfie_adapters.labelling.finished_run import open_run

    if settings.format in ("parquet", "nla"):
        require_extra("export", f"selfie export --format {settings.format}")
    finished = open_run(settings.run)
    path = Path(out) if out is not None else finished.folder / NAMES[settings.format]
    check_free(path, overwrite)
    console = Console()
    count = _writer(settings, finished, console)(path)
    if finished.missing:
        console.print(
            f"the run is not complete: {finished.missing} of {finished.record.vectors} vectors "
            "are not exported. Run the same selfie label command again for the rest.",
            style="yellow",
            highlight=False,
        )
    console.print(f"{count} rows: {path}", highlight=False, markup=False)


def _writer(settings: ExportSettings, run: FinishedRun, console: Console) -> Callable[[Path], int]:
    """What writes the run in the format of `settings`, and returns how many rows it wrote."""
    from selfie_adapters.labelling import export, interchange, neuronpedia

    model, source = settings.model_id or "", settings.source_id or ""
    author, layer = settings.author_id, settings.layer
    writers: dict[str, Callable[[Path], int]] = {
        "csv": lambda out: export.to_csv(run, out),
        "parquet": lambda out: export.to_parquet(run, out),
        "training": lambda out: export.to_training(run, out, layer),
        "neuronpedia": lambda out: neuronpedia.to_neuronpedia(run, out, model, source, author),
        "neuronpedia-vectors": lambda out: neuronpedia.to_neuronpedia_vectors(
            run, out, model, layer
        ),
        "neuronpedia-admin": lambda out: neuronpedia.to_neuronpedia_admin(
            run, out, model, source, author or ""
        ),
        "neuronpedia-upload": lambda out: _upload(settings, run, out, console),
        "delphi": lambda out: interchange.to_delphi(run, out, layer),
        "saebench": lambda out: interchange.to_saebench(run, out),
        "nla": lambda out: interchange.to_nla(run, out, layer),
    }
    return writers[settings.format]


def _upload(settings: ExportSettings, run: FinishedRun, out: Path, console: Console) -> int:
    require_extra("sae", "selfie export --format neuronpedia-upload")
    from selfie_adapters.commands.progress import count_shown
    from selfie_adapters.files.text_lines import read_prompts
    from selfie_adapters.labelling.neuronpedia_upload import (
        sae_of,
        to_neuronpedia_upload,
    )
    from selfie_adapters.model import load_model

    sae = sae_of(run, settings.sae)
    prompts = read_prompts(settings.prompts or "")
    with count_shown(console, "prompts") as progress:
        count, silent = to_neuronpedia_upload(
            run,
            out,
            settings.model_id or "",
            settings.source_id or "",
            load_model(run.settings.model, run.settings.dtype, settings.device),
            sae,
            prompts,
            progress,
        )
    if silent:
        console.print(
            f"{silent} labels are omitted: no prompt activates their latents, and Neuronpedia "
            "takes no feature without an activation. Give more prompts.",
            style="yellow",
            highlight=False,
        )
    return count
