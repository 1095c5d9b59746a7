"""`selfie prepare …`: search published SAEs, and make training files."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from selfie_adapters.commands.options import Json, Overwrite, options
from selfie_adapters.commands.printing import print_columns, print_json, print_line, print_table
from selfie_adapters.config.prepare import (
    DifferenceSettings,
    LabelFileSettings,
    SaeSearch,
    SaeSettings,
    TopicOptions,
    TopicWritingSettings,
    WriterSettings,
)

if TYPE_CHECKING:
    from torch import Tensor

    from selfie_adapters.chat.request import Cost
    from selfie_adapters.model import FrozenModel
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


@options(DifferenceSettings)
def difference(settings: DifferenceSettings, *, out: str, overwrite: Overwrite = False) -> None:
    """Subtract the states of one model from those of another, at the same tokens of the prompts.

    Row 0 of each section is the mean over prompts, row n the difference at prompt n. With --minus
    the models are loaded one after the other.

    Parameters
    ----------
    out
        Training file to write (.json or .json.gz); vectors go to the same folder.
    """
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.commands.progress import progress_bars
    from selfie_adapters.files.text_lines import read_prompts
    from selfie_adapters.model import load_model, with_lora
    from selfie_adapters.model.loading import load_tokenizer
    from selfie_adapters.sources.topics.difference import (
        check_tokens,
        difference_files,
        formatted,
        states_of,
        write_differences,
    )

    layers, positions, device = settings.layers, settings.positions, settings.device
    difference_files(out, layers, positions, overwrite)  # before a model is loaded
    prompts = read_prompts(settings.prompts)
    check_inputs(model=settings.model, lora=settings.lora, device=device)
    check_inputs(model=settings.minus)
    console = Console()
    first = load_model(settings.model, settings.dtype, device)
    second = first
    if settings.lora is not None:
        first = with_lora(first, settings.lora)
    texts = formatted(first, prompts, settings.chat)
    with progress_bars(console) as bars:
        total = len(prompts) * len(positions)

        def states(model: FrozenModel, name: str) -> Tensor:
            task = bars.add_task(f"states of {name}", total=total)
            return states_of(model, texts, layers, positions, lambda more: bars.advance(task, more))

        if settings.minus is not None:
            check_tokens(first, load_tokenizer(settings.minus), texts, settings.minus)
        found, name = states(first, settings.lora or settings.model), first.name
        if settings.minus is not None:
            del first, second  # one model at a time in memory
            gc.collect()
            second = load_model(settings.minus, settings.dtype, device)
        subtracted = states(second, settings.minus or settings.model)
    facts = {
        "model": name,
        "minus": second.name,
        "model_dim": second.d_model,
        "chat": settings.chat,
        "prompts": len(prompts),
    }
    changes = write_differences(
        out, found, subtracted, prompts, layers, positions, facts, overwrite
    )
    print_table(
        ("layer", "position", "‖mean‖", "mean ‖difference‖", "of the state", "agreement"),
        [
            (
                change.layer,
                change.position,
                f"{change.mean_norm:.3g}",
                f"{change.norm:.3g}",
                f"{change.relative:.1%}",
                "–" if change.agreement is None else f"{change.agreement:.2f}",
            )
            for change in changes
        ],
        console=console,
        names=0,
    )
    print_line(f"{len(prompts)} prompts: {out}", console)


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
