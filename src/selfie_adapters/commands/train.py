"""`selfie train`: a configuration in, a run folder out."""

from __future__ import annotations

import json as json_module
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from selfie_adapters.commands.checking import check_inputs
from selfie_adapters.config import load_config
from selfie_adapters.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from selfie_adapters.training import Validation


def train(
    *,
    config: str | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    device: str | None = None,
    resume: str | None = None,
    overwrite: bool = False,
    eval_only: Annotated[bool, Parameter(negative=())] = False,
    json: bool = False,
) -> None:
    """Train an adapter through a frozen model.

    Parameters
    ----------
    config
        YAML file with the documented keys (see training/configs).
    set_
        Change a key of the file, e.g. --set training.learning_rate=0.02; may be repeated.
    device
        Where the model goes: cpu, cuda, cuda:1, mps, or auto to spread it over all devices;
        default: model.device_map of the file.
    resume
        Run folder to resume, from its newest checkpoint; its own configuration is used.
    overwrite
        Replace the run that lives in the run folder already.
    eval_only
        Train nothing: measure the adapter of --resume (its best), or of the configuration's
        training.resume_from_checkpoint, alongside its controls.
    json
        With --eval-only: print one JSON object.
    """
    _check(config, set_, device, resume, overwrite, eval_only, json)
    from selfie_adapters import training

    changes = [*(set_ or []), *([] if device is None else [f"model.device_map={device}"])]
    settings = None if config is None else load_config(config, changes)
    if settings is not None:
        check_inputs(model=settings.model.name, device=settings.model.device_map)
    if eval_only:
        if resume is not None:
            found, what = training.measure_run(resume)
        else:
            assert settings is not None
            found, what = training.measure(settings)
        if _speaks():
            _print_losses(found, what, json)
        return
    console = Console()
    if resume is not None:
        folder = training.resume(resume, console=console)
    else:
        assert settings is not None
        folder = training.train(settings, console=console, overwrite=overwrite)
    if _speaks():
        _draw(folder, console)
        console.print(f"run folder: {folder}", highlight=False, markup=False)


def _check(
    config: str | None,
    set_: list[str] | None,
    device: str | None,
    resume: str | None,
    overwrite: bool,
    eval_only: bool,
    json: bool,
) -> None:
    if (config is None) == (resume is None):
        raise ConfigError(
            "selfie train requires one of --config FILE (a new run) and --resume RUN (resume one)."
        )
    if resume is not None and (set_ or overwrite or device):
        raise ConfigError(
            f"--resume {resume} takes its configuration from the folder as it is; --set, "
            "--device and --overwrite go with --config. To train on with other settings, start a "
            f"new run with --set training.resume_from_checkpoint={resume}/adapter_last.safetensors."
        )
    if json and not eval_only:
        raise ConfigError("--json goes with --eval-only; a run's numbers are in metrics.jsonl.")


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
        sys.stdout.write(json_module.dumps({"adapter": what, **found.row()}) + "\n")
        return
    from rich.table import Table

    table = Table(title=f"{what}, {found.examples} held-out examples", title_justify="left")
    table.add_column("condition")
    table.add_column("loss, nats per token", justify="right")
    table.add_row("trained, all examples", f"{found.loss:.4f}")
    for name, loss in found.controls.items():
        table.add_row(f"{name}, {found.control_examples} examples", f"{loss:.4f}")
    console = Console()
    console.print(table)
    if found.bias_share is not None:
        console.print(
            f"the bias alone explains {found.bias_share:.1%} of the improvement over the identity",
            highlight=False,
        )
