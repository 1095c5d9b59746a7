"""`selfie adapter push` and `pull`: an adapter with all that belongs to it, on the hub."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from selfie_adapters.commands.options import Overwrite, options
from selfie_adapters.config.commands import PullSettings, PushSettings
from selfie_adapters.errors import AdapterError, ConfigError, DataError
from selfie_adapters.files import atomic_path, check_free, existing_file
from selfie_adapters.output import visible

if TYPE_CHECKING:
    from selfie_adapters.report.evaluation_figures import Figure

CARD = "README.md"
_OF_A_RUN = ("adapter_best.safetensors", "adapter_final.safetensors")


@options(PushSettings)
def push(settings: PushSettings) -> None:
    """Share an adapter on the hub, with its means, its calibration and a model card.

    Without --upload nothing is sent: the files and the card are shown. Specialists next to the
    adapter go with it.
    """
    from selfie_adapters.adapters import load_adapter
    from selfie_adapters.hub import upload_to_hub
    from selfie_adapters.report.model_card import model_card

    _check_name(settings.repo)
    file = _adapter_file(settings.source)
    adapter = load_adapter(file)
    console = Console(soft_wrap=True)
    with tempfile.TemporaryDirectory() as folder:
        files = _files(settings, file, Path(folder))
        names = [CARD, *files]
        card = model_card(settings.repo, adapter, names, _figures(settings, file), _run_of(file))
        files[CARD] = card.encode()
        for name in names:
            content = files[name]
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            console.print(f"{name}  {size:,} bytes", highlight=False, markup=False)
        if not settings.upload:
            console.print(f"\n{visible(card, keep=chr(10))}", highlight=False, markup=False)
            console.print(
                f"\nNothing was sent. With --upload the files go to {settings.repo}.",
                highlight=False,
                markup=False,
            )
            return
        message = f"Adapter {adapter.kind}, width {adapter.dim}"
        address = upload_to_hub(settings.repo, files, message, settings.private)
    console.print(visible(address), highlight=False, markup=False)


@options(PullSettings)
def pull(settings: PullSettings, *, out: str, overwrite: Overwrite = False) -> None:
    """Copy a shared adapter from the hub, with its means, its calibration and its card.

    Commands also take the repository's name itself: --adapter owner/name.

    Parameters
    ----------
    out
        Folder to write to.
    """
    from selfie_adapters.adapters.locating import fetch_hub_adapter

    _check_name(settings.repo)
    fetched = fetch_hub_adapter(settings.repo, (CARD,))
    files = sorted(
        path for path in fetched.iterdir() if path.name == CARD or path.name.startswith("adapter.")
    )
    targets = {path: Path(out).expanduser() / path.name for path in files}
    for target in targets.values():
        check_free(target, overwrite)
    console = Console(soft_wrap=True)
    for path, target in targets.items():
        with atomic_path(target) as temporary:
            shutil.copyfile(path, temporary)
        console.print(visible(str(target)), highlight=False, markup=False)


def _check_name(repo: str) -> None:
    """Raise ConfigError for what is no name of a repository."""
    from selfie_adapters.hub import is_repo_name

    if not is_repo_name(repo):
        raise ConfigError(f'"{repo:.200}": the name of a repository, owner/name, is expected.')


def _adapter_file(source: str) -> Path:
    """The adapter that `source` means; of a training run's folder the best one, else the last."""
    from selfie_adapters.adapters import find_adapter_file

    folder = Path(source).expanduser()
    if (folder / "config.yaml").is_file():
        for name in _OF_A_RUN:
            if (folder / name).is_file():
                return folder / name
        raise AdapterError(
            f"{folder}: this run has neither {' nor '.join(_OF_A_RUN)} yet. Let it reach a "
            "validation or its end, or name an adapter file."
        )
    return find_adapter_file(source)


def _files(settings: PushSettings, file: Path, folder: Path) -> dict[str, Path | bytes]:
    """The adapter and all that belongs to it, by name in the repository.

    folder: for what has to be written first: a .pt adapter in the published safetensors format,
    and files whose headers state paths of this machine.
    """
    from selfie_adapters.adapters import load_adapter
    from selfie_adapters.adapters.containers import save_shared, shared_header
    from selfie_adapters.adapters.locating import HUB_ADAPTER, mean_beside
    from selfie_adapters.adapters.specialists import specialist_file, specialist_files
    from selfie_adapters.labelling.centering import mean_layers
    from selfie_adapters.labelling.confidence import Confidence, confidence_file
    from selfie_adapters.tensor_files.safetensors_file import safetensors_metadata

    found: dict[str, Path | bytes] = {}

    def add(name: str, path: Path) -> None:
        if path.suffix.lower() != ".safetensors":
            path = load_adapter(path).save(folder / "as_trained" / name)
        stated = safetensors_metadata(path)
        shared = shared_header(stated)
        found[name] = path if shared == stated else save_shared(path, shared, folder / name)

    add(HUB_ADAPTER, file)
    for (layer, kind), path in specialist_files(file).items():
        add(specialist_file(HUB_ADAPTER, layer, kind).name, path)
    mean = mean_beside(file) if settings.mean is None else existing_file(settings.mean)
    if mean.is_file():
        if mean.suffix.lower() != ".safetensors":
            raise ConfigError(
                f"{mean}: means are shared as .safetensors, with layer_0, layer_1, …."
            )
        mean_layers(mean)  # it is a file of means
        add(mean_beside(HUB_ADAPTER).name, mean)
    calibration = (
        confidence_file(file) if settings.confidence is None else existing_file(settings.confidence)
    )
    if calibration.is_file():
        Confidence.load(calibration)  # it is a calibration
        found[confidence_file(HUB_ADAPTER).name] = calibration
    return found


def _figures(settings: PushSettings, file: Path) -> list[Figure]:
    from selfie_adapters.report.evaluation_figures import evaluation_figures

    if settings.evaluation:
        return [one for path in settings.evaluation for one in evaluation_figures(path, file)]
    found: list[Figure] = []
    for results in sorted(file.parent.glob("*/results.json")):
        try:
            found += evaluation_figures(results.parent, file)
        except (ConfigError, DataError):  # of another adapter or protocol, or no evaluation
            continue
    return found


def _run_of(file: Path) -> Any:
    """The training run whose folder the adapter is in, None if it is in none."""
    from selfie_adapters.training.run_reading import read_run

    folder = file.parent
    is_run = (folder / "config.yaml").is_file() and (folder / "metrics.jsonl").is_file()
    return read_run(folder) if is_run else None
