"""`selfie eval NAME`: one of the evaluation protocols, from options, a configuration, or both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from selfie_adapters.commands.options import options
from selfie_adapters.config.evaluation.bridge import BridgeSettings
from selfie_adapters.config.evaluation.loss import LossSettings
from selfie_adapters.config.evaluation.naming import NamingSettings
from selfie_adapters.config.evaluation.retrieval import RetrievalSettings
from selfie_adapters.config.evaluation.scoring import ScoringSettings
from selfie_adapters.config.evaluation.taboo import TabooSettings
from selfie_adapters.config.reading import Section, read_config
from selfie_adapters.errors import ConfigError
from selfie_adapters.files import user_path
from selfie_adapters.files.locking import folder_lock


def _protocol(name: str, kind: type[Section], summary: str, published: bool = False) -> Any:
    """The command of a protocol; its module in this package is eval_{name}.

    The module has `run(settings, folder, console)`, which prints a table and returns the path of
    results.json. It may have `prepare(settings)`, which fills in what only the command knows and
    checks inputs. published: there are published configurations too; the module's
    `read(file, changes, given)` reads both forms.
    """

    def read(path: Path, kind: type[Section], changes: Sequence[str], given: Mapping[str, Any]):
        module = import_module(f"selfie_adapters.commands.eval_{name}")
        return module.read(path, changes, given)

    @options(kind, config=True, read=read if published else read_config)
    def command(settings: Any, config: Path | None, *, out: str | None = None) -> None:
        """{summary} Stopped, it resumes where it was.

        Parameters
        ----------
        out
            Folder of the results; default: results/ and the name of the configuration, or of the
            protocol.
        """
        _run(name, settings, config, out)

    assert command.__doc__ is not None
    command.__doc__ = command.__doc__.replace("{summary}", summary)
    return command


bridge = _protocol(
    "bridge",
    BridgeSettings,
    "Read the entity that connects the two hops of a question from the question's states.",
    published=True,
)
loss = _protocol(
    "loss",
    LossSettings,
    "Measure the loss of held-out labels: every adapter on every training file, with controls.",
)
naming = _protocol(
    "naming",
    NamingSettings,
    "Count right, related and wrong labels of held-out vectors, block by block, with controls and "
    "baselines.",
)
retrieval = _protocol(
    "retrieval", RetrievalSettings, "Look up labels among all topics and rank the right one."
)
scoring = _protocol(
    "scoring",
    ScoringSettings,
    "Write conversations from labels and measure whether they activate the latent of the label.",
    published=True,
)
taboo = _protocol(
    "taboo",
    TabooSettings,
    "Look up a chat model's description of a topic, which may not name it, among all topics.",
)
PROTOCOLS: dict[str, Callable[..., None]] = {
    "bridge": bridge,
    "loss": loss,
    "naming": naming,
    "retrieval": retrieval,
    "scoring": scoring,
    "taboo": taboo,
}


def _run(name: str, given: Any, config: Path | None, out: str | None) -> None:
    """Run a protocol into its folder, or resume it.

    given: its settings, or what a published configuration was translated to, with `settings`.
    """
    from selfie_adapters.commands.checking import check_inputs

    protocol = import_module(f"selfie_adapters.commands.eval_{name}")
    if hasattr(protocol, "prepare"):
        given = protocol.prepare(given)
    settings = getattr(given, "settings", given)
    folder = _folder(given, config, out, name)
    check_inputs(model=getattr(settings, "model", None), device=settings.device)
    console = Console()
    with folder_lock(folder):
        results = protocol.run(given, folder, console)
    console.print(f"results: {results}", highlight=False, markup=False)


def _folder(given: Any, config: Path | None, out: str | None, name: str) -> Path:
    """Where the results go: --out, else the folder that a published file names, else results/."""
    if out is not None:
        return user_path(out)
    named = getattr(given, "output_folder", None)
    if named is None:
        return Path("results") / (name if config is None else config.stem)
    folder = user_path(named)
    if not folder.parent.is_dir():
        raise ConfigError(
            f"{config}: output_dir is {named}, and the folder {folder.parent} does not exist. "
            "Create it, or give --out."
        )
    return folder
