"""`selfie read`: every layer and token of a prompt, labelled; JSON and one page."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from selfie_adapters.commands.options import Json, options
from selfie_adapters.commands.printing import print_json, print_line
from selfie_adapters.commands.read_table import show_reading
from selfie_adapters.config.reading import ReadSettings
from selfie_adapters.extras import require_extra

if TYPE_CHECKING:
    from selfie_adapters.reading.read import Cell, Reading


@options(ReadSettings)
def read(options: ReadSettings, *, out: str | None = None, json: Json = False) -> None:
    """Label what the model holds at every layer and token of a prompt.

    A cell is silent (·) where the adapter answers that the state holds no concept, and where the
    label's confidence is below the threshold.

    Killed and run again with the same settings, it resumes where it stopped.

    Parameters
    ----------
    out
        Folder for reading.json and reading.html; default: the terminal alone.
    """
    if out is not None:
        require_extra("report", "selfie read --out", "jinja2")
    from selfie_adapters.adapters import load_adapter
    from selfie_adapters.adapters.locating import find_adapter_file, find_mean_file, needed_adapter
    from selfie_adapters.adapters.specialists import adapter_digest
    from selfie_adapters.chat.request import read_messages
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.commands.progress import progress_bars
    from selfie_adapters.files import sha256
    from selfie_adapters.files.locking import folder_lock
    from selfie_adapters.inference.logit_lens import check_lens
    from selfie_adapters.inference.microbatch import rows_per_batch
    from selfie_adapters.labelling.adapter_prompt import adapter_prompt
    from selfie_adapters.labelling.centering import mean_layers
    from selfie_adapters.labelling.labeller import Labeller
    from selfie_adapters.model import load_model, with_lora
    from selfie_adapters.model.fingerprint import weights_digest
    from selfie_adapters.reading.answering import answer_ids
    from selfie_adapters.reading.answers import decomposer_of
    from selfie_adapters.reading.calibration import calibration
    from selfie_adapters.reading.controls import control_sentence, random_control
    from selfie_adapters.reading.folder import ReadingFolder
    from selfie_adapters.reading.means import read_means
    from selfie_adapters.reading.plan import plan_reading
    from selfie_adapters.reading.read import (
        Reading,
        chat_of_reading,
        read_cells,
    )
    from selfie_adapters.report.reading_page import trained_layers, write_reading_page

    adapter = needed_adapter(options.adapter, options.model, "selfie read")
    check_inputs(
        model=options.model,
        lora=options.lora,
        device=options.device,
        adapters=[adapter],
        files=[options.confidence],
    )
    prompt = options.prompt if options.messages is None else read_messages(options.messages)
    assert prompt is not None  # one of them is given, the settings check it
    adapter_file = find_adapter_file(adapter)
    mean = find_mean_file(options.mean, adapter_file)
    check_inputs(files=[mean])
    loaded = load_adapter(adapter_file)
    trust = calibration(
        adapter_file,
        options.confidence,
        options.max_new_tokens,
        options.template,
        options.placeholder,
        **options.candidates,
    )
    frozen = load_model(options.model, options.dtype, options.device)
    source = frozen if options.lora is None else with_lora(frozen, options.lora)
    layers = mean_layers(mean) if mean and options.layers is None else options.layers
    chat = options.chat if options.messages is None else "template"
    used, warnings = chat_of_reading(source, [loaded], chat, mean)
    console = Console(quiet=json)
    for warning in warnings:
        print_line(warning, console, "yellow")
    answer = answer_ids(source, prompt, used, options.generate) if options.generate else ()
    plan = plan_reading(source, prompt, layers, options.positions, used, options.special, answer)
    means = None if mean is None else read_means(mean, plan.layers, frozen.d_model)
    if means is not None:
        means.at(plan.positions, len(plan.tokens))  # a token without a mean is refused now
    if options.lens:
        check_lens(source)
    soft_prompt = adapter_prompt(loaded, frozen.tokenizer, options.template, options.placeholder)
    labeller = Labeller(frozen, loaded, soft_prompt, check=not options.ignore_binding)
    decomposer = decomposer_of(labeller, options, source, mean)
    at_once = options.batch_size
    if decomposer is not None:  # a killed reading loses no more labels than without concepts
        at_once = min(at_once, max(1, rows_per_batch(frozen) // (decomposer.samples + 1)))
    record: dict[str, Any] = {
        "model": frozen.name,
        "revision": frozen.revision,
        "weights_digest": weights_digest(frozen),
        "dtype": str(frozen.dtype).removeprefix("torch."),
        "adapter": str(adapter),
        "adapter_sha256": adapter_digest(adapter_file),
        "mean": mean,
        "mean_sha256": None if mean is None else sha256(mean),
        "confidence": None if trust is None else trust.fields(),
        "max_new_tokens": options.max_new_tokens,
    }
    # Only where they are given: readings of earlier versions can be continued.
    given = {
        "template": options.template,
        "placeholder": options.placeholder,
        "lens": options.lens or None,
        "lora": options.lora,
        "answer_tokens": len(answer) or None,
        "lora_weights_digest": None if source is frozen else weights_digest(source),
    }
    if decomposer is not None:
        given |= {
            "concepts": options.concepts,
            "candidates": decomposer.samples + 1,
            "temperature": decomposer.temperature,
            "seed": options.seed,
        }
    record |= {key: value for key, value in given.items() if value is not None}
    with contextlib.ExitStack() as stack:
        kept = None
        if out is not None:
            stack.enter_context(folder_lock(out))
            kept = ReadingFolder(out, plan, record)
        done = {} if kept is None else kept.cells
        progress = stack.enter_context(progress_bars(console))
        task = progress.add_task("cells", total=plan.n_cells, completed=len(done))
        missing = len(done) < plan.n_cells
        found: list[Cell] = []
        for cells in (
            read_cells(
                labeller,
                plan,
                means,
                trust,
                at_once,
                options.max_new_tokens,
                lambda *c: c in done,
                options.lens,
                source,
                decomposer,
            )
            if missing
            else ()
        ):
            if kept is not None:
                kept.append(cells)
            found += cells
            progress.advance(task, len(cells))
        labelled = tuple(found) if kept is None else kept.in_order()
        # The labels are seen before the control is made, which takes as long as many of them.
        show_reading(console, Reading(plan, labelled), options.find, options.show_withheld)
        progress.update(task, visible=False)
        progress.add_task("random directions", total=None)
        if kept is not None and kept.finished:
            control = kept.control
        else:
            control = random_control(
                labeller, plan, means, trust, options.max_new_tokens, decomposer, source
            )
        reading = Reading(plan, labelled, control) if kept is None else kept.finish(control)
    if (sentence := control_sentence(reading)) is not None:
        console.print(sentence, highlight=False, markup=False)
    if json:
        settings = record if kept is None else kept.settings
        print_json([{"settings": settings, **reading.as_dict()}])
    if out is None:
        console.print("--out FOLDER keeps the reading, with a page", style="dim", highlight=False)
        return
    page = Path(out) / "reading.html"
    facts = _facts(record, reading)
    layers_seen = trained_layers(loaded)
    write_reading_page(
        page, reading, facts, trust, layers_seen, options.find, options.show_withheld
    )
    print_line(f"{plan.n_cells} cells: {page}", console)


def _facts(record: dict[str, Any], reading: Reading) -> dict[str, str]:
    plan = reading.plan
    labels = "greedy labels"
    if "concepts" in record:
        labels = (
            f"up to {record['concepts']} concepts each, the one of {record['candidates']} "
            f"candidates that explains most (temperature {record['temperature']:g}),"
        )
    return {
        "model": f"{record['model']}, {record['dtype']}",
        **({"read": f"the model with the LoRA {record['lora']}"} if "lora" in record else {}),
        "adapter": f"{record['adapter']} (SHA-256 {record['adapter_sha256'][:12]}…)",
        "mean subtracted": record["mean"] or "none",
        "chat": plan.chat,
        "cells": f"{plan.n_cells}: {len(plan.layers)} layers × {len(plan.positions)} of "
        f"{len(plan.tokens)} tokens, {labels} of at most {record['max_new_tokens']} tokens",
        "layer L": "the output of decoder block L, counted from 0",
    }
