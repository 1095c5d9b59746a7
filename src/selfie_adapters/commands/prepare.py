"""`selfie prepare …`: search published SAEs, and make training files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from selfie_adapters.commands.options import Json, Overwrite, options
from selfie_adapters.commands.printing import print_columns, print_json, print_line
from selfie_adapters.config.prepare import (
    LabelFileSettings,
    SaeSearch,
    SaeSettings,
    TopicOptions,
    TopicWritingSettings,
)

if TYPE_CHECKING:
    from selfie_adapters.chat.request import Cost
    from selfie_adapters.config.prepare import WriterSettings
    from selfie_adapters.sources.sae.registry import RegisteredSae


@options(SaeSettings)
def sae(settings: SaeSettings, *, overwrite: Overwrite = False) -> None:
    """Write an SAE's decoder rows and their labels as a training file.

    Writes {output-name}.pt and {output-name}_labels.json.
    """
    from selfie_adapters.commands.progress import progress_bars
    from selfie_adapters.sources.sae.dataset import prepare_sae

    console = Console()
    with progress_bars(console) as bar:
        batches = bar.add_task("label batches", total=None)
        rows = bar.add_task("decoder rows", total=None)
        done = prepare_sae(
            settings,
            lambda n, total: bar.update(batches, completed=n, total=total),
            lambda n, total: bar.update(rows, completed=n, total=total),
            overwrite=overwrite,
        )
    _print(console, (*done.report, str(done.vectors_file), str(done.labels_file)))


@options(TopicOptions)
def topics(settings: TopicOptions, *, out: str, overwrite: Overwrite = False) -> None:
    """Capture topic vectors and write them with their labels as a training file.

    Parameters
    ----------
    out
        Training file to write (.json or .json.gz); vectors and mean go to the same folder.
    """
    from selfie_adapters.chat.request import read_messages
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.commands.progress import count_shown
    from selfie_adapters.model import load_model, with_lora
    from selfie_adapters.sources import open_topics
    from selfie_adapters.sources.topics.dataset import topic_files, write_topic_dataset
    from selfie_adapters.sources.topics.frames import read_frames

    settings.check()
    topic_files(out, settings, overwrite)  # before the model is loaded
    check_inputs(model=settings.model, lora=settings.lora, device=settings.device)
    read_frames(settings.frames)
    if settings.messages is not None:
        read_messages(settings.messages)
    rows = open_topics(settings.source)
    console = Console()
    loaded = load_model(settings.model, settings.dtype, settings.device)
    if settings.lora is not None:
        loaded = with_lora(loaded, settings.lora)
    with count_shown(console, "vectors") as progress:
        path = write_topic_dataset(loaded, rows, settings, out, progress, overwrite)
    console.print(f"{len(rows)} topics: {path}", highlight=False, markup=False)


@options(LabelFileSettings)
def labels(settings: LabelFileSettings, *, out: str, overwrite: Overwrite = False) -> None:
    """Fetch the labels of a Neuronpedia source and write them as JSON lines.

    Parameters
    ----------
    out
        File to write (.jsonl or .jsonl.gz): index, description, explanationModelName, typeName.
    """
    from selfie_adapters.commands.progress import count_shown
    from selfie_adapters.files import check_free, user_path
    from selfie_adapters.sources.labels.files import write_label_file
    from selfie_adapters.sources.labels.neuronpedia import fetch_source_labels

    check_free(user_path(out), overwrite)
    console = Console()
    with count_shown(console, "label batches") as progress:
        found = fetch_source_labels(
            settings.source,
            explainer=settings.explainer,
            all_explainers=settings.all_explainers,
            labels_url=settings.labels_url,
            progress=progress,
        )
    path = write_label_file(out, found)
    _print(console, (*found.report, f"{len(found)} labels of {len(found.labels)} latents: {path}"))


@options(TopicWritingSettings, config=True)
def dataset(
    settings: TopicWritingSettings, config: Path | None, *, out: str, yes: bool = False
) -> None:
    """Let a chat model write prompts and labels for titles; costs are shown before it is asked.

    Stopped and run again, it asks only what is missing.

    Parameters
    ----------
    out
        Folder for topics.jsonl, candidates.jsonl, report.json, and all answers.
    yes
        Go; without it, the costs are shown and nothing is asked.
    """
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.commands.progress import steps_shown
    from selfie_adapters.files import read_json
    from selfie_adapters.files.locking import folder_lock
    from selfie_adapters.sources.topics.writing import REPORT, TopicWriting

    check_inputs(device=settings.device)
    console = Console(soft_wrap=True)
    with folder_lock(out):
        writing = TopicWriting(settings, out)
        write, judge = writing.costs()
        _print_cost(console, "writing", write, settings.writer)
        if settings.judged:
            _print_cost(console, "judging", judge, settings.judge or settings.writer)
        if not yes and write.requests + judge.requests:
            console.print("no request was sent; --yes sends them", highlight=False)
            return
        with steps_shown(console) as progress:
            path = writing.run(progress)
    counts = read_json(Path(out) / REPORT)["counts"]
    _print(console, (", ".join(f"{name} {count}" for name, count in counts.items()), str(path)))


def _print_cost(console: Console, what: str, cost: Cost, settings: WriterSettings) -> None:
    line = f"{what}: {cost.requests:,} requests, about {cost.input_tokens:,} tokens in, at most "
    line += f"{cost.output_tokens:,} out"
    if settings.input_price is not None and settings.output_price is not None:
        line += f", at most {cost.price(settings.input_price, settings.output_price):,.2f} in all"
    _print(console, [line])


def _print(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        print_line(line, console)


_SHOWN = 40  # single SAEs; more are counted by release


@options(SaeSearch)
def list_saes(settings: SaeSearch, *, json: Json = False) -> None:
    """Search SAELens' registry of published SAEs."""
    from selfie_adapters.sources.sae.registry import search_registry

    found = search_registry(settings.words, settings.model, settings.labelled)
    if json:
        print_json(_row(entry) for entry in found)
        return
    console = Console()
    if not found:
        print_line("no SAE matches; fewer words find more", console)
        return
    heading, *rows = _by_sae(found) if len(found) <= _SHOWN else _by_release(found)
    print_columns(rows, console, heading)
    with_labels = sum(entry.neuronpedia_id is not None for entry in found)
    releases = len({entry.release for entry in found})
    print_line(
        f"{len(found)} SAEs in {releases} releases, {with_labels} with a Neuronpedia source",
        console,
    )


def _row(entry: RegisteredSae) -> dict[str, str | None]:
    return {
        "release": entry.release,
        "sae_id": entry.sae_id,
        "model": entry.model,
        "repository": entry.repo,
        "path": entry.path,
        "neuronpedia_id": entry.neuronpedia_id,
    }


def _by_sae(found: list[RegisteredSae]) -> list[tuple[str, ...]]:
    rows = [(e.release, e.sae_id, e.model, e.neuronpedia_id or "–") for e in found]
    return [("release", "SAE id", "model", "labels on Neuronpedia"), *rows]


def _by_release(found: list[RegisteredSae]) -> list[tuple[str, ...]]:
    releases: dict[str, list[RegisteredSae]] = {}
    for entry in found:
        releases.setdefault(entry.release, []).append(entry)
    rows = [("release", "model", "SAEs", "labelled", "one of them")]
    for release, saes in releases.items():
        labelled = [entry for entry in saes if entry.neuronpedia_id]
        example = (labelled or saes)[0].sae_id
        rows.append((release, saes[0].model, str(len(saes)), str(len(labelled)), example))
    return rows
