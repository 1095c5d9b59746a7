"""`selfie prepare sae`: decoder vectors of an SAE with their labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from selfie_adapters.output import visible

_FLAG = Parameter(negative=())


def sae(
    *,
    output_name: str,
    output_dir: Path = Path("data"),
    release: str | None = None,
    sae_id: str | None = None,
    sae_path: Path | None = None,
    layer: int | None = None,
    neuronpedia_id: str | None = None,
    labels_json: Path | None = None,
    labels_jsonl: Path | None = None,
    labels_url: str | None = None,
    explainer: str | None = None,
    all_explainers: Annotated[bool, _FLAG] = False,
    one_label: Annotated[bool, _FLAG] = False,
    val_fraction: float = 0.1,
    seed: int = 42,
    force_new_split: Annotated[bool, _FLAG] = False,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    device: str = "cpu",
    overwrite: Annotated[bool, _FLAG] = False,
) -> None:
    """Write an SAE's decoder rows and their labels as a training file.

    Writes {output-name}.pt and {output-name}_labels.json.

    Parameters
    ----------
    output_name
        Name of both files.
    output_dir
        Folder to write them to.
    release
        Release in SAELens' registry, or its hub repository; see selfie prepare list.
    sae_id
        SAE of the release.
    sae_path
        SAE on disk: a folder, or a file with a decoder. With --release: its weights' file.
    layer
        Block whose output the vectors are directions of, zero-based; where nothing else says it.
    neuronpedia_id
        Source of the labels, model/source, where the registry does not know it.
    labels_json
        Labels from a file: {"12": "label", …}, the training format, or JSON lines with index and
        description; .gz too.
    labels_jsonl
        The same; a file whose content leaves it open is read as JSON lines.
    labels_url
        Copy of Neuronpedia's export bucket: a folder, or an address that answers S3's listing.
    explainer
        Keep the labels of this model, or model/type.
    all_explainers
        Keep the labels of all of them.
    one_label
        Keep a latent's first label only.
    val_fraction
        Share of the labelled latents that is held out.
    seed
        Seed of the split.
    force_new_split
        Split again even if the label file has splits.
    dtype
        Dtype of the vectors; bfloat16 and float16 halve the file.
    device
        Where SAELens loads what it alone can read; all else is copying and needs no GPU.
    overwrite
        Replace files of the same name.
    """
    options = locals()  # the parameters and nothing else: they are SaeRequest's fields
    from selfie_adapters.commands.progress import progress_bars
    from selfie_adapters.sources.sae.dataset import SaeRequest, prepare_sae

    request = SaeRequest(**options)
    console = Console()
    with progress_bars(console) as bar:
        batches = bar.add_task("label batches", total=None)
        rows = bar.add_task("decoder rows", total=None)
        done = prepare_sae(
            request,
            lambda n, total: bar.update(batches, completed=n, total=total),
            lambda n, total: bar.update(rows, completed=n, total=total),
        )
    for line in (*done.report, str(done.vectors_file), str(done.labels_file)):
        console.print(visible(line), highlight=False, markup=False, soft_wrap=True)
