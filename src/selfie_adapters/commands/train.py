"""`selfie train`: a configuration in, a run folder out."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from selfie_adapters.config import load_config


def train(
    *,
    config: str,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    overwrite: bool = False,
) -> None:
    """Train an adapter through a frozen model.

    Parameters
    ----------
    config
        YAML file with the documented keys (see training/configs).
    set_
        Change a key of the file, e.g. --set training.learning_rate=0.02; may be repeated.
    overwrite
        Replace the run that lives in the run folder already.
    """
    settings = load_config(config, set_ or [])
    from selfie_adapters.training import train as train_adapter

    console = Console()
    folder = train_adapter(settings, console=console, overwrite=overwrite)
    console.print(f"run folder: {folder}", highlight=False, markup=False)
