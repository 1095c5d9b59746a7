"""`selfie read`: every layer and token of a prompt, labelled; JSON and one page."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from selfie_adapters.commands.read_table import show_reading
from selfie_adapters.errors import ConfigError
from selfie_adapters.extras import require_extra
from selfie_adapters.output import visible

if TYPE_CHECKING:
    from selfie_adapters.reading.read import Cell, Reading


def read(
    prompt: str,
    *,
    adapter: str | None = None,
    model: str = "demo",
    out: str | None = None,
    layers: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    positions: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    mean: str | None = None,
    confidence: str | None = None,
    chat: Literal["template", "bare", "none"] | None = None,
    special: bool = False,
    find: str = "",
    lens: Annotated[bool, Parameter(negative=())] = False,
    show_withheld: Annotated[bool, Parameter(negative=())] = False,
    max_new_tokens: int = 30,
    batch_size: int = 64,
    dtype: str = "auto",
    template: str | None = None,
    placeholder: str | None = None,
    device: str | None = None,
    ignore_binding: bool = False,
) -> None:
    """Label what the model holds at every layer and token of a prompt.

    A cell is silent (·) where the adapter answers that the state holds no concept, and where the
    label's confidence is below the threshold.

    Killed and run again with the same settings, it resumes where it stopped.

    Parameters
    ----------
    prompt
        The text to read.
    adapter
        Adapter file, hub path, or a shipped one's name; default: demo, for the model demo.
    model
        Hub id, local folder, .gguf file, or demo.
    out
        Folder for reading.json and reading.html; default: the terminal alone.
    layers
        Blocks, zero-based: 24, 4:28:4, 0,5,9; default: all, or those that --mean has.
    positions
        Tokens, counted like layers; negative ones from the end; default: all but special ones.
    mean
        File of mean vectors (layer_12, or layer_12_at_-1 and layer_12_at_name), subtracted first.
    confidence
        Calibration file (selfie confidence fit); default: the one next to the adapter, if it fits.
    chat
        The tokenizer's own chat template, a bare turn without system prompt, or none; default: that
        of the vectors the adapter was trained on, else of the mean file, else template.
    special
        Read special tokens too.
    find
        Mark cells whose label names this word.
    lens
        Show the logit lens's word under each label.
    show_withheld
        Show the labels of silent cells too; reading.json always has them.
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
    if out is not None:
        require_extra("report", "selfie read --out", "jinja2")
    from rich.progress import Progress

    from selfie_adapters.adapters import load_adapter
    from selfie_adapters.adapters.locating import (
        find_adapter_file,
        find_mean_file,
        usual_adapter,
    )
    from selfie_adapters.adapters.specialists import adapter_digest
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.files import sha256
    from selfie_adapters.files.locking import folder_lock
    from selfie_adapters.inference.logit_lens import check_lens
    from selfie_adapters.labelling.centering import mean_layers
    from selfie_adapters.labelling.labeller import Labeller, adapter_prompt
    from selfie_adapters.model import load_model
    from selfie_adapters.model.fingerprint import weights_digest
    from selfie_adapters.reading.folder import ReadingFolder
    from selfie_adapters.reading.means import read_means
    from selfie_adapters.reading.plan import plan_reading
    from selfie_adapters.reading.read import (
        Reading,
        calibration,
        chat_of_reading,
        read_cells,
    )
    from selfie_adapters.report.reading_page import write_reading_page

    adapter = usual_adapter(adapter, model)
    if adapter is None:
        raise ConfigError(
            f"selfie read with {model} needs --adapter FILE: one that was trained for this model."
        )
    check_inputs(model=model, device=device, adapters=[adapter], files=[confidence])
    adapter_file = find_adapter_file(adapter)
    mean = find_mean_file(mean, adapter_file)
    check_inputs(files=[mean])
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
    if means is not None:
        means.at(plan.positions, len(plan.tokens))  # a token without a mean is refused now
    if lens:
        check_lens(frozen)
    soft_prompt = adapter_prompt(loaded, frozen.tokenizer, template, placeholder)
    labeller = Labeller(frozen, loaded, soft_prompt, check=not ignore_binding)
    settings: dict[str, Any] = {
        "model": frozen.name,
        "revision": frozen.revision,
        "weights_digest": weights_digest(frozen),
        "dtype": str(frozen.dtype).removeprefix("torch."),
        "adapter": str(adapter),
        "adapter_sha256": adapter_digest(adapter_file),
        "mean": mean,
        "mean_sha256": None if mean is None else sha256(mean),
        "confidence": None if trust is None else trust.fields(),
        "max_new_tokens": max_new_tokens,
    }
    # Only where they are given: readings of earlier versions can be continued.
    given = {"template": template, "placeholder": placeholder, "lens": lens or None}
    settings |= {key: value for key, value in given.items() if value is not None}
    with contextlib.ExitStack() as stack:
        kept = None
        if out is not None:
            stack.enter_context(folder_lock(out))
            kept = ReadingFolder(out, plan, settings)
        done = {} if kept is None else kept.cells
        progress = stack.enter_context(Progress(console=console, transient=True))
        task = progress.add_task("cells", total=plan.n_cells, completed=len(done))
        missing = len(done) < plan.n_cells
        found: list[Cell] = []
        for cells in (
            read_cells(
                labeller, plan, means, trust, batch_size, max_new_tokens, lambda *c: c in done, lens
            )
            if missing
            else ()
        ):
            if kept is not None:
                kept.append(cells)
            found += cells
            progress.advance(task, len(cells))
        reading = Reading(plan, tuple(found)) if kept is None else kept.finish()
    show_reading(console, reading, find, show_withheld)
    if out is None:
        console.print("--out FOLDER keeps the reading, with a page", style="dim", highlight=False)
        return
    trained = loaded.binding.layer if loaded.binding else None
    page = Path(out) / "reading.html"
    facts = _facts(settings, reading)
    write_reading_page(page, reading, facts, trust, trained, find, show_withheld)
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
