"""`selfie prepare …`: make training files."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from selfie_adapters.output import visible


def topics(
    source: str,
    *,
    model: str,
    layers: Annotated[list[int], Parameter(consume_multiple=True, negative=())],
    out: str,
    question: str = "Tell me about {}.",
    chat: Literal["template", "bare", "none"] = "template",
    position: int = -1,
    val_fraction: float = 0.1,
    seed: int = 42,
    dtype: str = "auto",
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    device: str | None = None,
) -> None:
    """Capture topic vectors and write them with their labels as a training file.

    Parameters
    ----------
    source
        JSONL or CSV with name or prompt, and labels; the word concepts for the project's own; or a
        data set on the hub (owner/name).
    model
        Hub id, local folder, .gguf file, or demo.
    layers
        Blocks whose output is taken, zero-based; one section of the file each.
    out
        Training file to write (.json or .json.gz); vectors and mean go beside it.
    question
        What a name is put into.
    chat
        The tokenizer's own chat template, a bare turn without system prompt, or none.
    position
        Token of the text, from the end when negative.
    val_fraction
        Share of the topics that is held out, where they do not come with a split.
    seed
        Seed of the split.
    dtype
        Dtype of the model: auto, bfloat16, float16, float32.
    overwrite
        Replace files of the same name.
    device
        Where the model goes: cpu, cuda, cuda:1, mps, or auto to spread it over all devices;
        default: the first GPU, else the CPU.
    """
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.commands.progress import progress_bars
    from selfie_adapters.model import load_model
    from selfie_adapters.sources import open_topics
    from selfie_adapters.sources.topic_dataset import (
        TopicSettings,
        topic_files,
        write_topic_dataset,
    )

    topic_files(out, layers, overwrite)  # before the model is loaded
    check_inputs(model=model, device=device)
    rows = open_topics(source)
    settings = TopicSettings(tuple(layers), question, chat, position, val_fraction, seed)
    console = Console()
    loaded = load_model(model, dtype, device)
    with progress_bars(console) as progress:
        task = progress.add_task("vectors", total=len(rows))
        path = write_topic_dataset(
            loaded, rows, settings, out, lambda done: progress.advance(task, done), overwrite
        )
    console.print(f"{len(rows)} topics: {path}", highlight=False, markup=False)


def labels(
    source: str,
    *,
    out: str,
    explainer: str | None = None,
    all_explainers: Annotated[bool, Parameter(negative=())] = False,
    labels_url: str | None = None,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Fetch the labels of a Neuronpedia source and write them as JSON lines.

    Parameters
    ----------
    source
        model/source, such as llama3.1-8b/19-llamascope-res-32k.
    out
        File to write (.jsonl or .jsonl.gz): index, description, explanationModelName, typeName.
    explainer
        Keep the labels of this model, or model/type; without it, those of the explainer that labels
        the most latents.
    all_explainers
        Keep the labels of all of them.
    labels_url
        Copy of the export bucket: a folder, or an address that answers S3's listing.
    overwrite
        Replace a file of the same name.
    """
    from selfie_adapters.commands.progress import files_fetched
    from selfie_adapters.files import check_free, user_path
    from selfie_adapters.sources.label_files import write_label_file
    from selfie_adapters.sources.neuronpedia import fetch_source_labels

    check_free(user_path(out), overwrite)
    console = Console()
    with files_fetched(console) as progress:
        found = fetch_source_labels(
            source,
            explainer=explainer,
            all_explainers=all_explainers,
            labels_url=labels_url,
            progress=progress,
        )
    path = write_label_file(out, found)
    for line in found.report:
        console.print(visible(line), highlight=False, markup=False, soft_wrap=True)
    line = f"{len(found)} labels of {len(found.labels)} latents: {path}"
    console.print(visible(line), highlight=False, markup=False, soft_wrap=True)
