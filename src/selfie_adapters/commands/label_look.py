"""`selfie label --text` and `--concept`: a first look at one state, printed, without files."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from selfie_adapters.commands.printing import print_json, print_line
from selfie_adapters.config.labelling import LabelOptions
from selfie_adapters.config.shared import BindingSettings, DisplaySettings, ModelSettings
from selfie_adapters.errors import ConfigError, ModelError
from selfie_adapters.output import EMPTY, SILENT, visible

if TYPE_CHECKING:
    from selfie_adapters.adapters import Adapter
    from selfie_adapters.reading.look import Look

_OWN = {"text", "concept", "adapter", "mean", "confidence", "layer", "max_new_tokens"}
_SHARED = (ModelSettings, BindingSettings, DisplaySettings)


def check_look(options: LabelOptions, out: str, usual_out: str) -> None:
    """Raise ConfigError for options that a first look has no use for."""
    if options.text is not None and options.concept is not None:
        raise ConfigError("--text and --concept cannot be combined; give one of them.")
    flag = "--text" if options.text is not None else "--concept"
    taken = _OWN.union(*(kind.model_fields for kind in _SHARED))
    other = sorted(options.model_fields_set - taken) + (["out"] if out != usual_out else [])
    if other:
        names = ", ".join(
            "source" if one == "source" else f"--{one.replace('_', '-')}" for one in other
        )
        raise ConfigError(
            f"{flag} labels one state and writes no files; it takes no {names}. For a training "
            "file of such states: selfie prepare topics, then selfie label FILE."
        )


def look_at(options: LabelOptions, json: bool) -> None:
    """Label one state and print its labels. json: as one object per layer. Raises like
    `selfie read`."""
    from selfie_adapters.adapters import find_adapter_file, load_adapter
    from selfie_adapters.adapters.locating import find_mean_file, needed_adapter
    from selfie_adapters.commands.checking import check_inputs
    from selfie_adapters.inference.logit_lens import check_lens
    from selfie_adapters.labelling.adapter_prompt import adapter_prompt
    from selfie_adapters.labelling.labeller import Labeller
    from selfie_adapters.model import load_model
    from selfie_adapters.reading.calibration import calibration
    from selfie_adapters.reading.look import concept_plan, look, text_plan
    from selfie_adapters.reading.read import chat_of_reading

    adapter = needed_adapter(options.adapter, options.model, "selfie label --text or --concept")
    check_inputs(
        model=options.model,
        device=options.device,
        adapters=[adapter],
        files=[options.mean, options.confidence],
    )
    file = find_adapter_file(adapter)
    mean = find_mean_file(options.mean, file)
    loaded = load_adapter(file)
    layers = _layers(options.layer, mean, loaded)
    prompt = (options.template, options.placeholder)
    confidence = calibration(file, options.confidence, options.max_new_tokens, *prompt)
    model = load_model(options.model, options.dtype, options.device)
    chat, warnings = chat_of_reading(model, [loaded], None, mean)
    console = Console(quiet=json)
    for warning in warnings:
        print_line(warning, console, "yellow")
    if options.text is not None:
        plan = text_plan(model, options.text, layers, chat)
    else:
        question = loaded.binding.question if loaded.binding else None
        plan = concept_plan(model, options.concept or "", layers, chat, question)
    try:
        lens = bool(check_lens(model))
    except ModelError:  # the labels do not need it
        lens = False
    bound = adapter_prompt(loaded, model.tokenizer, *prompt)
    labeller = Labeller(model, loaded, bound, check=not options.ignore_binding)
    found = look(labeller, plan, mean, confidence, options.max_new_tokens, lens)
    if json:
        print_json({"prompt": plan.prompt, "token": found.token, **asdict(c)} for c in found.cells)
        return
    _show(console, found, options.show_withheld)


def _layers(layer: int | None, mean: str | None, adapter: Adapter) -> list[int]:
    from selfie_adapters.labelling.centering import mean_layers

    if layer is not None:
        return [layer]
    if mean is not None:
        return mean_layers(mean)
    if adapter.binding is not None and adapter.binding.layer is not None:
        return [adapter.binding.layer]
    raise ConfigError(
        "Pass --layer: neither the adapter nor a file of means states which block to read."
    )


def _show(console: Console, found: Look, show_withheld: bool) -> None:
    plan = found.plan
    position = plan.positions[0] - len(plan.tokens)
    print_line(
        f"{plan.prompt!r} (chat format {plan.chat}): the state at token {found.token!r}, "
        f"{-position} from the end",
        console,
    )
    sure = any(cell.confidence is not None for cell in found.cells)
    lens = any(cell.lens is not None for cell in found.cells)
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", justify="right")
    table.add_column("label", overflow="fold", min_width=12)
    table.add_column("confidence" if sure else "gain", justify="right")
    if lens:
        table.add_column("logit lens", style="italic")
    for cell in found.cells:
        withheld = cell.withheld is not None
        silent = withheld and not show_withheld
        label = Text(SILENT if silent else visible(cell.label) or EMPTY, "dim" if withheld else "")
        number = cell.confidence if sure else cell.gain
        row = [str(cell.layer), label, "" if number is None else f"{number:.2f}"]
        table.add_row(*row, *([Text(visible(cell.lens or "") or EMPTY)] if lens else []))
    console.print(table)
    counts = {
        why: sum(cell.withheld == why for cell in found.cells)
        for why in ("no concept", "below threshold")
    }
    if listed := ", ".join(f"{count} {why}" for why, count in counts.items() if count):
        mark = "dim" if show_withheld else SILENT
        rest = "" if show_withheld else "; --show-withheld shows them"
        print_line(f"{mark} withheld ({listed}){rest}", console, "dim")
