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
    positions: Annotated[
        str, Parameter(name=["--positions", "--position"], allow_leading_hyphen=True)
    ] = "-1",
    frames: str | None = None,
    frames_per_topic: int = 2,
    names_only: Annotated[bool, Parameter(negative=())] = False,
    no_concept: float | None = None,
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
        JSONL or CSV with name or prompt, and labels; the word concepts for the project's own 8,000
        nouns, or more-concepts for 12,000 to train on; or a data set on the hub (owner/name).
    model
        Hub id, local folder, .gguf file, or demo.
    layers
        Blocks whose output is taken, zero-based; one section of the file each.
    out
        Training file to write (.json or .json.gz); vectors and mean are written next to it.
    question
        What a name is put into.
    chat
        The tokenizer's own chat template, a bare turn without system prompt, or none.
    positions
        Tokens whose states are taken: numbers and ranges such as -1 or -4:0, counted from the end
        when negative, and name, the last token of the topic's name in the sentences of --frames;
        several as in -1,name.
    frames
        File of sentences with {} for the name, one per line; every fifth is kept for held-out
        topics. Default: 60 sentences of the package.
    frames_per_topic
        Sentences each name is put into.
    names_only
        Label training vectors with their topic's name alone: short labels, learned faster.
    no_concept
        Vectors without a concept that are added, as a share of the topics': states of function
        words, punctuation and chat tokens, random directions. Their label is "nothing". Default:
        0.15 with the position name, else 0.
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
    from selfie_adapters.sources.topics.dataset import topic_files, write_topic_dataset
    from selfie_adapters.sources.topics.frames import read_frames
    from selfie_adapters.sources.topics.sites import TopicSettings, read_positions

    settings = TopicSettings(
        tuple(layers),
        question,
        chat,
        read_positions(positions),
        read_frames(frames),
        frames_per_topic,
        names_only,
        no_concept,
        val_fraction=val_fraction,
        seed=seed,
    )
    settings.check()
    topic_files(out, settings, overwrite)  # before the model is loaded
    check_inputs(model=model, device=device)
    rows = open_topics(source)
    console = Console()
    loaded = load_model(model, dtype, device)
    with progress_bars(console) as progress:
        task = progress.add_task("vectors", total=None)
        path = write_topic_dataset(
            loaded,
            rows,
            settings,
            out,
            lambda done, total: progress.update(task, completed=done, total=total),
            overwrite,
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
    from selfie_adapters.sources.labels.files import write_label_file
    from selfie_adapters.sources.labels.neuronpedia import fetch_source_labels

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
