"""`selfie prepare dataset`: topics from titles, written by a chat model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

if TYPE_CHECKING:
    from selfie_adapters.chat.costs import Cost
    from selfie_adapters.config.writing import WriterSettings


def dataset(
    *,
    config: str,
    out: str,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    device: str | None = None,
    yes: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Let a chat model write prompts and labels for titles; costs are shown before it is asked.

    Stopped and run again, it asks only what is missing.

    Parameters
    ----------
    config
        YAML or JSON file (see data_prep/configs).
    out
        Folder for topics.jsonl, candidates.jsonl, report.json, and all answers.
    set_
        Change a key of the file, such as --set limit=10; may be repeated.
    device
        Where a chat model in this process goes: cpu, cuda, cuda:1, mps, or auto; default: device of
        the file.
    yes
        Go; without it, the costs are shown and nothing is asked.
    """
    import json

    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.commands.progress import steps_shown
    from selfie_adapters.config.reading import beside, read_config
    from selfie_adapters.config.writing import TopicWritingSettings
    from selfie_adapters.files.locking import folder_lock
    from selfie_adapters.sources.topics.writing import REPORT, TopicWriting

    settings = read_config(config, TopicWritingSettings, set_ or [])
    settings = settings.model_copy(update={"titles": beside(config, settings.titles)})
    if device is not None:
        settings = settings.model_copy(update={"device": device})
    check_inputs(device=settings.device)
    console = Console(soft_wrap=True)
    with folder_lock(out):
        writing = TopicWriting(settings, out)
        write, judge = writing.costs()
        _print(console, "writing", write, settings.writer)
        if settings.judged:
            _print(console, "judging", judge, settings.judge or settings.writer)
        if not yes and write.requests + judge.requests:
            console.print("no request was sent; --yes sends them", highlight=False)
            return
        with steps_shown(console) as progress:
            path = writing.run(progress)
    report = json.loads((Path(out) / REPORT).read_text(encoding="utf-8"))
    counts = ", ".join(f"{name} {count}" for name, count in report["counts"].items())
    console.print(counts, highlight=False, markup=False)
    console.print(str(path), highlight=False, markup=False)


def _print(console: Console, what: str, cost: Cost, settings: WriterSettings) -> None:
    line = f"{what}: {cost.requests:,} requests, about {cost.input_tokens:,} tokens in, at most "
    line += f"{cost.output_tokens:,} out"
    if settings.input_price is not None and settings.output_price is not None:
        line += f", at most {cost.price(settings.input_price, settings.output_price):,.2f} in all"
    console.print(line, highlight=False, markup=False)
