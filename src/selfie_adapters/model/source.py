"""From the name of a model to what has to be read: a folder, a hub repository, a GGUF file, a LoRA.

What is on this machine is looked at before any library is asked, so that a wrong path, a Git LFS
pointer or an incomplete folder is reported as what it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfie_adapters.errors import ModelError
from selfie_adapters.files import is_lfs_pointer, looks_local, nearest_paths, read_json, user_path
from selfie_adapters.model.demo_model import demo_model_folder

LORA_CONFIG = "adapter_config.json"

_GGUF = b"GGUF"
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".ckpt")
_TOKENIZER_STARTS = ("tokenizer", "vocab", "tekken", "merges", "spiece", "sentencepiece")
_TOKENIZER_ENDS = (".model", ".tiktoken", ".spm")


@dataclass(frozen=True)
class ModelSource:
    """What to read for a model.

    base: folder or hub id of the dense weights; gguf: a GGUF file in place of them; adapter: folder
    or hub id of a PEFT adapter (LoRA) that belongs on the base; revision: the base's hub commit.
    """

    name: str
    base: str
    gguf: Path | None = None
    adapter: str | None = None
    revision: str | None = None

    @property
    def is_local(self) -> bool:
        return Path(self.base).is_dir()

    def tokenizer(self) -> dict[str, Any]:
        """Arguments that load the tokenizer; an adapter's folder may bring its own."""
        if self.adapter is not None and Path(self.adapter).is_dir():
            names = [path.name for path in Path(self.adapter).iterdir()]
            if any(name.startswith(("tokenizer.", "vocab.")) for name in names):
                return {"pretrained_model_name_or_path": self.adapter}
        options: dict[str, Any] = {"pretrained_model_name_or_path": self.base}
        if self.gguf is not None:
            options["gguf_file"] = self.gguf.name
        return options | ({} if self.revision is None else {"revision": self.revision})


def find_model(name: str, weights: bool = True) -> ModelSource:
    """What `name` refers to: "demo", a folder, a GGUF file, or else a hub id.

    weights: whether they are needed, or the tokenizer alone.
    Raises ModelError for a path that does not exist (with the names nearest to it), for a file that
    is not a GGUF file, and for a folder that is empty, incomplete, or holds Git LFS pointers.
    """
    if name == "demo":
        return ModelSource(name, str(demo_model_folder()))
    path = user_path(name)
    if path.is_file():
        return _of_file(name, path)
    if path.is_dir():
        return _of_folder(name, path, weights)
    if looks_local(name, _WEIGHTS):
        raise ModelError(f"{name}: no such model folder or file. {nearest_paths(path)}")
    return _of_repository(name)


def check_path(name: str) -> None:
    """Raise ModelError if `name` was meant as a path and is not a model; no hub is asked."""
    if name != "demo" and (user_path(name).exists() or looks_local(name, _WEIGHTS)):
        find_model(name)


def _of_file(name: str, path: Path) -> ModelSource:
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(_GGUF):
        return ModelSource(name, str(path.parent), gguf=path)
    if is_lfs_pointer(path):
        raise ModelError(_pointer_message([path]))
    found = f"it begins with {start!r}, a GGUF file with {_GGUF!r}"
    if path.suffix.lower() == ".gguf":
        raise ModelError(f"{path}: not a GGUF file ({found}). Download it again.")
    raise ModelError(
        f"{path}: a file, but not a GGUF file ({found}). Give the folder that save_pretrained "
        f"wrote, with config.json, weights and tokenizer (perhaps {path.parent})."
    )


def _of_folder(name: str, folder: Path, weights: bool) -> ModelSource:
    entries = sorted(path.name for path in folder.iterdir())
    _check_no_pointers(folder, entries, weights)
    adapter = str(folder) if LORA_CONFIG in entries else None
    if "config.json" not in entries:
        if adapter is not None:
            return _base_of(adapter, _adapter_config(folder / LORA_CONFIG), name, weights)
        raise ModelError(f"{folder}: {_not_a_model(entries)}")
    if not any(
        entry.startswith(_TOKENIZER_STARTS) or entry.endswith(_TOKENIZER_ENDS) for entry in entries
    ):
        raise ModelError(
            f"{folder}: a model without a tokenizer (no tokenizer.json, tokenizer.model or vocab "
            "file). Copy the tokenizer's files into it: tokenizer.save_pretrained(folder)."
        )
    if weights and not any(entry.endswith((".safetensors", ".bin")) for entry in entries):
        raise ModelError(
            f"{folder}: a model without weights (no .safetensors or .bin file). It holds: "
            f"{_listed(entries)}. Download it completely."
        )
    return ModelSource(name, str(folder), adapter=adapter)


def _not_a_model(entries: list[str]) -> str:
    if not entries:
        return (
            "an empty folder. Expected a model as save_pretrained writes it (config.json, weights, "
            "tokenizer)."
        )
    ggufs = [entry for entry in entries if entry.lower().endswith(".gguf")]
    fix = (
        f"or name the .gguf file itself: {_listed(ggufs)}" if ggufs else f"found {_listed(entries)}"
    )
    return f"a folder without config.json. Expected a model as save_pretrained writes it; {fix}."


def _listed(names: list[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def _check_no_pointers(folder: Path, entries: list[str], weights: bool) -> None:
    """A repository cloned without Git LFS holds small text files in place of the large ones."""
    pointers: list[Path] = []
    for entry in entries:
        path = folder / entry
        if not weights and entry.endswith(_WEIGHTS):
            continue
        if path.is_file() and is_lfs_pointer(path):
            pointers.append(path)
    if pointers:
        raise ModelError(_pointer_message(pointers))


def _pointer_message(pointers: list[Path]) -> str:
    names = _listed([path.name for path in pointers])
    return (
        f"{pointers[0].parent}: {names}: a Git LFS pointer (a text file of "
        f"{pointers[0].stat().st_size} bytes), not the file itself. Fetch the files with `git lfs "
        "pull` in that folder, or download the model with `hf download`."
    )


def _adapter_config(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise ModelError(f"{path}: a JSON object is expected, found {type(found).__name__}.")
    return found


def _base_of(adapter: str, config: dict[str, Any], name: str, weights: bool) -> ModelSource:
    """The base model that an adapter's configuration names, with the adapter on it."""
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"{adapter}/{LORA_CONFIG}: base_model_name_or_path is {base!r}; a LoRA needs the name "
            "of its base model there. Write the base's folder or hub id into it."
        )
    near = Path(adapter) / base  # a relative path may count from the adapter's own folder
    try:
        found = find_model(
            str(near) if near.is_dir() and not Path(base).is_dir() else base, weights
        )
    except ModelError as error:
        raise ModelError(
            f"{adapter}: a LoRA on {base}, which cannot be read: {error} The base is named in "
            f"{LORA_CONFIG}, base_model_name_or_path."
        ) from error
    if found.adapter is not None or found.gguf is not None:
        what = "a GGUF file" if found.gguf is not None else "a LoRA itself"
        raise ModelError(
            f"{adapter}: a LoRA on {base}, which is {what}. Merge it into dense weights first "
            "(peft: merge_and_unload, then save_pretrained)."
        )
    if isinstance(revision := config.get("revision"), str) and not found.is_local:
        found = _of_repository(found.base, revision)
    return replace(found, name=name, adapter=adapter)


def _of_repository(name: str, revision: str | None = None) -> ModelSource:
    """A hub repository, pinned to its present commit; it may be a LoRA, or a model with one."""
    config = model_file(name, "config.json", revision)
    adapter = model_file(name, LORA_CONFIG, revision)
    if config is None and adapter is not None:
        return _base_of(name, _adapter_config(adapter), name, weights=True)
    if adapter is not None:  # a model with an adapter next to it
        from huggingface_hub import snapshot_download

        folder = snapshot_download(name, revision=_commit(config) or revision)
        return ModelSource(name, folder, adapter=folder, revision=_commit(config))
    return ModelSource(name, name, revision=_commit(config) or revision)


def model_file(repo: str, filename: str, revision: str | None) -> Path | None:
    """A file of a hub repository or folder; None without it, or if the hub cannot be asked."""
    from transformers.utils import cached_file

    try:
        found = cached_file(
            repo,
            filename,
            revision=revision,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):  # loading the model itself reports what is wrong
        return None
    return None if found is None else Path(found)


def _commit(file: Path | None) -> str | None:
    """The commit of a file in the hub's cache: …/snapshots/COMMIT/config.json."""
    if file is None or file.parent.parent.name != "snapshots":
        return None
    return file.parent.name
