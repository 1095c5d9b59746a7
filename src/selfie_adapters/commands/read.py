"""`selfie read`: every layer and token of a prompt, labelled; JSON and one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from selfie_adapters.extras import require_extra
from selfie_adapters.output import visible

if TYPE_CHECKING:
    from selfie_adapters.labelling.confidence import Confidence
    from selfie_adapters.labelling.reading import Reading

_ROWS, _COLUMNS = 60, 5  # of the table in the terminal


def read(
    prompt: str,
    *,
    adapter: str,
    model: str,
    out: str,
    layers: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    positions: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    mean: str | None = None,
    confidence: str | None = None,
    chat: Literal["template", "bare", "none"] | None = None,
    special: bool = False,
    find: str = "",
    max_new_tokens: int = 30,
    batch_size: int = 64,
    dtype: str = "auto",
    template: str | None = None,
    placeholder: str | None = None,
    device: str | None = None,
    ignore_binding: bool = False,
) -> None:
    """Label what the model holds at every layer and token of a prompt.

    Killed and run again with the same settings, it resumes where it stopped.

    Parameters
    ----------
    prompt
        The text to read.
    adapter
        Adapter file.
    model
        Hub id, local folder, .gguf file, or demo.
    out
        Folder for reading.json and reading.html.
    layers
        Blocks, zero-based: 24, 4:28:4, 0,5,9; default: all, or those that --mean has.
    positions
        Tokens, counted like layers; negative ones from the end; default: all but special ones.
    mean
        File of mean vectors (layer_0, layer_1, …), subtracted first.
    confidence
        Calibration file (selfie confidence fit); default: the one beside the adapter, if it fits.
    chat
        The tokenizer's own chat template, a bare turn without system prompt, or none; default: that
        of the vectors the adapter was trained on, else of the mean file, else template.
    special
        Read special tokens too.
    find
        Mark cells whose label names this word.
    max_new_tokens
        Longest label, in tokens.
    batch_size
        Cells at a time.
    dtype
        Dtype of the model: auto, bfloat16, float16, float32.
    template
        Prompt text with the placeholder; default: the adapter's, else that of selfie prompt show.
    placeholder
        The token of the prompt that each soft token replaces; default: that of the prompt.
    device
        Where the model goes: cpu, cuda, cuda:1, mps, or auto to spread it over all devices;
        default: the first GPU, else the CPU.
    ignore_binding
        Continue although the adapter was trained with another model or prompt.
    """
    require_extra("report", "selfie read", "jinja2")
    from dataclasses import asdict

    from rich.progress import Progress

    from selfie_adapters.adapters import load_adapter
    from selfie_adapters.adapters.locating import find_adapter_file
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.files import sha256
    from selfie_adapters.labelling.labeller import Labeller, adapter_prompt
    from selfie_adapters.labelling.reading import (
        calibration,
        chat_of_reading,
        mean_layers,
        read_cells,
        read_means,
    )
    from selfie_adapters.labelling.reading_folder import ReadingFolder
    from selfie_adapters.labelling.reading_plan import plan_reading
    from selfie_adapters.locking import folder_lock
    from selfie_adapters.model import load_model
    from selfie_adapters.model.fingerprint import weights_digest
    from selfie_adapters.report.reading_page import write_reading_page

    check_inputs(model=model, device=device, adapters=[adapter], files=[mean, confidence])
    adapter_file = find_adapter_file(adapter)
    loaded = load_adapter(adapter_file)
    trust = calibration(adapter_file, confidence, max_new_tokens, template, placeholder)
    frozen = load_model(model, dtype, device)
    wanted = mean_layers(mean) if mean and layers is None else layers
    used, warnings = chat_of_reading(frozen, [loaded], chat, mean)
    console = Console()
    for warning in warnings:
        console.print(visible(warning), style="yellow", highlight=False, markup=False)
    plan = plan_reading(frozen, prompt, wanted, positions, used, special)
    means = None if mean is None else read_means(mean, plan.layers, frozen.d_model)
    soft_prompt = adapter_prompt(loaded, frozen.tokenizer, template, placeholder)
    labeller = Labeller(frozen, loaded, soft_prompt, check=not ignore_binding)
    settings: dict[str, Any] = {
        "model": frozen.name,
        "revision": frozen.revision,
        "weights_digest": weights_digest(frozen),
        "dtype": str(frozen.dtype).removeprefix("torch."),
        "adapter": str(adapter),
        "adapter_sha256": sha256(adapter_file),
        "mean": mean,
        "mean_sha256": None if mean is None else sha256(mean),
        "confidence": None if trust is None else asdict(trust),
        "max_new_tokens": max_new_tokens,
    }
    # Only where they are given: readings of earlier versions can be continued.
    given = {"template": template, "placeholder": placeholder}
    settings |= {key: value for key, value in given.items() if value is not None}
    with folder_lock(out), Progress(console=console, transient=True) as progress:
        folder = ReadingFolder(out, plan, settings)
        task = progress.add_task("cells", total=plan.n_cells, completed=len(folder.cells))
        if not folder.whole:
            for cells in read_cells(
                labeller, plan, means, trust, batch_size, max_new_tokens, folder.done
            ):
                folder.append(cells)
                progress.advance(task, len(cells))
        reading = folder.finish()
    trained = loaded.binding.layer if loaded.binding else None
    page = Path(out) / "reading.html"
    write_reading_page(page, reading, _facts(settings, reading), trust, trained, find)
    _print_table(console, reading, trust, find)
    console.print(f"{plan.n_cells} cells: {page}", highlight=False, markup=False)


def _facts(settings: dict[str, Any], reading: Reading) -> dict[str, str]:
    plan = reading.plan
    return {
        "model": f"{settings['model']}, {settings['dtype']}",
        "adapter": f"{settings['adapter']} (SHA-256 {settings['adapter_sha256'][:12]}…)",
        "mean subtracted": settings["mean"] or "none",
        "chat": plan.chat,
        "cells": f"{plan.n_cells}: {len(plan.layers)} layers × {len(plan.positions)} of "
        f"{len(plan.tokens)} tokens, greedy labels of at most {settings['max_new_tokens']} tokens",
        "layer L": "the output of decoder block L, counted from 0",
    }


def _print_table(console: Console, reading: Reading, trust: Confidence | None, find: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from selfie_adapters.report.reading_page import measure, names_word, shown_token

    plan, scale = reading.plan, measure(trust)
    step = max(1, -(-len(plan.layers) // _COLUMNS))
    layers = plan.layers[::-1][::step][::-1]  # the last one is always among them
    cells = {(cell.layer, cell.position): cell for cell in reading.cells}
    table = Table(box=None, pad_edge=False)
    table.add_column("token", no_wrap=True, justify="right", width=16)
    for layer in layers:
        width = max(8, (console.width - 16) // len(layers) - 1)
        table.add_column(f"layer {layer}", no_wrap=True, max_width=width)
    for position in plan.positions[:_ROWS]:
        row = [Text(str(shown_token(plan.tokens[position])["text"]), style="bold")]
        for layer in layers:
            cell = cells[layer, position]
            value = getattr(cell, scale["name"])
            doubted = not value > 0 or value < scale["threshold"]
            style = "bold yellow" if names_word(cell.label, find) else "dim" if doubted else ""
            row.append(Text(visible(cell.label) or "∅", style=style))
        table.add_row(*row)
    console.print(table)
    notes = []
    if len(layers) < len(plan.layers):
        notes.append(f"{len(layers)} of {len(plan.layers)} layers")
    if len(plan.positions) > _ROWS:
        notes.append(f"{_ROWS} of {len(plan.positions)} tokens")
    if notes:
        console.print(f"shown: {', '.join(notes)}", style="dim", highlight=False)
    if find:
        found = sum(names_word(cell.label, find) for cell in reading.cells)
        what = Text(f'{found} cells name "{visible(find)}"')
        console.print(what)
