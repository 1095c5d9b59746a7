"""`selfie train`: a configuration in, a run folder out."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from cyclopts import Parameter
from rich.console import Console

from selfie_adapters.commands.checking import check_inputs
from selfie_adapters.commands.options import Given, Json, Overwrite, options
from selfie_adapters.commands.printing import print_json, print_line, rich_table
from selfie_adapters.config import TrainConfig, load_config
from selfie_adapters.config.settings import Settings, own_section
from selfie_adapters.errors import ConfigError, MissingExtraError
from selfie_adapters.files import check_free, user_path, write_text
from selfie_adapters.interruption import advice

if TYPE_CHECKING:
    from selfie_adapters.training import Validation


_COMMENT_WIDTH = 98


def _read(
    file: Path, _kind: type[TrainConfig], changes: Sequence[str], given: Mapping[str, Any]
) -> TrainConfig:
    return load_config(file, changes, given)


@options(TrainConfig, config=True, read=_read, lazy=True)
def train(
    given: Given,
    *,
    resume: str | None = None,
    overwrite: Overwrite = False,
    eval_only: bool = False,
    init_config: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    json: Json = False,
) -> None:
    """Train an adapter through a frozen model, from a configuration, options, or both.

    Parameters
    ----------
    resume
        Run folder to resume, from its newest checkpoint; its own configuration is used.
    eval_only
        Train nothing: measure the adapter of --resume (its best), or of the configuration's
        training.resume_from_checkpoint, with its controls.
    init_config
        Train nothing: write a configuration file with the values of the options and a comment for
        every key; - prints it.
    """
    _check(given, resume, overwrite, eval_only, json, init_config)
    if init_config is not None:
        _write_config(given, init_config, overwrite)
        return
    settings = None if resume is not None else given.settings()
    if settings is not None:
        check_inputs(model=settings.model.name, device=settings.model.device_map)
    from selfie_adapters import training
    from selfie_adapters.training.run_folder import RunFolder
    from selfie_adapters.training.stopping import how_to_resume

    if eval_only:
        if settings is None:
            found, what = training.measure_run(str(resume))
        else:
            found, what = training.measure(settings)
        if _speaks():
            _print_losses(found, what, json)
        return
    console = Console()
    if settings is None:
        folder = training.resume(str(resume), console=console)
    else:
        folder = training.train(settings, console=console, overwrite=overwrite)
    with advice(lambda: how_to_resume(RunFolder(folder, begun=True))):
        if _speaks():
            _draw(folder, console)
            console.print(f"run folder: {folder}", highlight=False, markup=False)


def _write_config(given: Given, to: str, overwrite: bool) -> None:
    example = {"model": {"name": "demo"}, "data": {"labels_file": "data/sample/sample.json"}}
    text = _commented(given.settings(**example))
    if to == "-":
        sys.stdout.write(text)
        return
    check_free(user_path(to), overwrite)
    write_text(to, text)
    Console().print(f"configuration: {to}", highlight=False, markup=False)


def _check(
    given: Given,
    resume: str | None,
    overwrite: bool,
    eval_only: bool,
    json: bool,
    init_config: str | None,
) -> None:
    if resume is None and not given and init_config is None:
        raise ConfigError(
            "selfie train requires --config FILE or options such as --model and --labels-file (a "
            "new run), or --resume RUN (resume one)."
        )
    if resume is not None and (given or overwrite or init_config is not None):
        raise ConfigError(
            f"--resume {resume} takes its configuration from the folder as it is; settings and "
            "--overwrite are for a new run. To continue training with other settings, start "
            "a new run with "
            f"--resume-from-checkpoint {resume}/adapter_last.safetensors."
        )
    if json and not eval_only:
        raise ConfigError(
            "--json needs --eval-only. The numbers of a training run are in metrics.jsonl."
        )


def _speaks() -> bool:
    """Of several processes (torchrun counts them in RANK) only the first one speaks."""
    return os.environ.get("RANK", "0") == "0"


def _draw(folder: Path, console: Console) -> None:
    """The loss curve, where matplotlib is installed."""
    from selfie_adapters.report.figures import write_loss_curve

    try:
        write_loss_curve(folder)
    except MissingExtraError as error:
        console.print(f"no loss curve: {error}", highlight=False, markup=False)


def _print_losses(found: Validation, what: str, json: bool) -> None:
    if json:
        print_json([{"adapter": what, **found.row()}])
        return
    rows = [("trained, all examples", f"{found.loss:.4f}")]
    rows += [
        (f"{name}, {found.control_examples} examples", f"{loss:.4f}")
        for name, loss in found.controls.items()
    ]
    title = f"{what}, {found.examples} held-out examples"
    Console().print(rich_table(("condition", "loss, nats per token"), rows, title, names=1))
    if (share := found.bias_share) is not None:
        print_line(f"the bias alone explains {share:.1%} of the improvement over the identity")


def _commented(settings: Settings) -> str:
    """YAML with every key of `settings` and what it means, which reads back to equal settings."""
    return "\n".join(_lines(type(settings), settings.model_dump(mode="json"), "")) + "\n"


def _lines(kind: type[Settings], values: dict[str, Any], indent: str) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        text = " ".join((field.description or "").split())
        yield from textwrap.wrap(
            text, _COMMENT_WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        section, value = own_section(field.annotation), values[name]
        if section is not None and isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from _lines(section, value, indent + "  ")
            if not indent:
                yield ""
            continue
        dumped = yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True)
        yield from (indent + line for line in dumped.splitlines())
