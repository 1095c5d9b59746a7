"""From what a person names (a file, a folder, a hub path) to one adapter file on this machine."""

from __future__ import annotations

from importlib.resources import files as package_files
from pathlib import Path

from selfie_adapters.adapters.containers import SUFFIXES, is_adapter_file
from selfie_adapters.adapters.specialists import is_specialist
from selfie_adapters.errors import (
    AdapterError,
    ConfigError,
    DownloadError,
    MissingFileError,
    nearest,
)
from selfie_adapters.files import existing_file, looks_local, user_path
from selfie_adapters.hub import fetch_hub_file, fetch_hub_files, hub_file_names, is_repo_name

HUB_ADAPTER = "adapter.safetensors"
"""The adapter in a repository that selfie adapter push made."""
HUB_FILES = ("adapter.safetensors", "adapter.*.safetensors", "adapter.confidence.json")
"""What belongs to it there: itself, specialists, means, and calibration."""
MEAN_SUFFIX = ".mean.safetensors"
DEMO = "demo"
NO_ADAPTER = "none"


def shipped_concepts(adapter: str | None = None) -> Path:
    """The training file of some held-out nouns' vectors that comes with the package: that of the
    shipped `adapter`, where it has one of its own, or else that of the set "demo"."""
    own = None if adapter is None else shipped().get(adapter)
    if own is not None and concepts_beside(own).is_file():
        return concepts_beside(own)
    return Path(str(package_files("selfie_adapters.adapters") / "shipped" / "concepts.json"))


def shipped() -> dict[str, Path]:
    """The adapters that come with the package, by name: "demo" and others for the demo model."""
    folder = Path(str(package_files("selfie_adapters.adapters") / "shipped"))
    return {
        path.name.removesuffix(".safetensors"): path
        for path in sorted(folder.glob("*.safetensors"))
        if not path.name.endswith(MEAN_SUFFIX)
        and path.stem.rpartition(".")[2] != shipped_concepts().stem
        and not is_specialist(path)
    }


def mean_beside(adapter_file: str | Path) -> Path:
    """Where the mean vectors of an adapter are: {adapter}.mean.safetensors in the same folder."""
    path = Path(adapter_file)
    return path.with_name(f"{path.stem}{MEAN_SUFFIX}")


def concepts_beside(adapter_file: str | Path) -> Path:
    """Where vectors for a first look at a shipped adapter are: {adapter}.concepts.json."""
    path = Path(adapter_file)
    return path.with_name(f"{path.stem}.concepts.json")


def usual_adapter(adapter: str | None, model: str) -> str | None:
    """The adapter a command runs with: the one that is named; the shipped one for the demo model.

    None, for untrained SelfIE, where "none" is asked for, and for other models.
    """
    if adapter is None:
        return DEMO if model == DEMO else None
    return None if adapter == NO_ADAPTER else adapter


def needed_adapter(adapter: str | None, model: str, command: str) -> str:
    """As `usual_adapter`, for a command that does not work without one.

    Raises ConfigError where there is none.
    """
    if (named := usual_adapter(adapter, model)) is None:
        raise ConfigError(
            f"{command} with {model} needs --adapter FILE: one that was trained for this model."
        )
    return named


def find_mean_file(name: str | None, adapter_file: Path | None) -> str | None:
    """The mean-vectors file that `name` means: that of a shipped adapter, or a path.

    None takes the one next to the adapter, if there is one.
    """
    if name is not None:
        packaged = shipped().get(name)
        return name if packaged is None else str(mean_beside(packaged))
    if adapter_file is None or not mean_beside(adapter_file).is_file():
        return None
    return str(mean_beside(adapter_file))


def find_adapter_file(path_or_repo: str | Path) -> Path:
    """The local file behind the name of a shipped adapter ("demo"), a file path, a folder that
    holds exactly one adapter file, a hub path `owner/repo/file.safetensors` (downloaded to the
    hub's own cache, or found there), or a hub repository `owner/repo` with adapter.safetensors,
    whose specialists, means and calibration come with it.

    A shipped name wins over a folder of that name (write ./demo), what exists on disk over the hub.
    Raises MissingFileError for a local path that does not exist, AdapterError for a folder with
    none or several adapter files and for a hub path that cannot be fetched.
    """
    if (packaged := shipped().get(str(path_or_repo))) is not None:
        return packaged
    path = user_path(path_or_repo)
    if path.is_dir():
        return _only_adapter_in(path)
    name = str(path_or_repo)
    parts = name.split("/")
    if path.exists() or looks_local(name):
        return existing_file(path)
    if is_repo_name(name) and not name.lower().endswith(SUFFIXES):
        return fetch_hub_adapter(name) / HUB_ADAPTER
    if len(parts) == 1 and not path.suffix:
        raise MissingFileError(
            f"{name}: no such file, and no adapter of that name comes with the package. "
            f"{nearest(name, shipped())}"
        )
    if not _is_hub_path(parts):
        return existing_file(path)
    return _from_hub("/".join(parts[:2]), "/".join(parts[2:]))


def _is_hub_path(parts: list[str]) -> bool:
    plain = all(part and part[0] not in ".~" for part in parts)
    return plain and len(parts) >= 3 and parts[-1].lower().endswith(SUFFIXES)


def _only_adapter_in(folder: Path) -> Path:
    candidates = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    adapters = [path for path in candidates if is_adapter_file(path) and not is_specialist(path)]
    if len(adapters) == 1:
        return adapters[0]
    if adapters:
        names = ", ".join(path.name for path in adapters)
        raise AdapterError(f"{folder}: holds {len(adapters)} adapter files; name one of: {names}.")
    seen = f" Not adapters: {', '.join(p.name for p in candidates[:5])}." if candidates else ""
    raise AdapterError(f"{folder}: holds no adapter file (.safetensors or .pt).{seen}")


def fetch_hub_adapter(repo: str, more: tuple[str, ...] = ()) -> Path:
    """Local folder with the adapter of hub repository `repo` and what belongs to it (HUB_FILES).

    more: names of other files that are fetched where they are there. Raises AdapterError for a
    repository that cannot be fetched or has no adapter.safetensors; it lists the adapters there.
    """
    try:
        folder = fetch_hub_files(repo, [*HUB_FILES, *more], kind="model")
    except DownloadError as error:
        raise AdapterError(f"there is no such local file, and {error}") from error
    if (folder / HUB_ADAPTER).is_file():
        return folder
    names = hub_file_names(repo, "model")
    others = [name for name in names if name.lower().endswith(SUFFIXES)]
    if not names:
        found = f"Its copy in the hub's cache has no {HUB_ADAPTER}: fetch it with network first."
    elif others:
        listed = ", ".join(f"{repo}/{name}" for name in others[:12])
        found = f"Name one of its files: {listed}."
    else:
        found = "It holds no .safetensors or .pt file at all."
    raise AdapterError(f"{repo}: holds no {HUB_ADAPTER}. {found}")


def _from_hub(repo: str, filename: str) -> Path:
    try:
        return fetch_hub_file(repo, filename, "Or download it elsewhere and give the local path.")
    except DownloadError as error:
        raise AdapterError(f"there is no such local file, and {error}") from error
