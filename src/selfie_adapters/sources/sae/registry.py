"""SAELens: its registry of published SAEs, read without importing it, and its loader as a fallback.

The registry (`pretrained_saes.yaml`) says for every SAE where its files lie on the hub, in which
layout, and what Neuronpedia calls it. Nothing about single releases is written down here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from selfie_adapters.errors import DataError, DownloadError, first_line
from selfie_adapters.extras import extra, module_folder
from selfie_adapters.files import existing_file

if TYPE_CHECKING:
    from sae_lens import SAE
    from torch import Tensor

OWN_LAYOUT = "sae_lens"  # cfg.json next to sae_weights.safetensors


@dataclass(frozen=True)
class RegisteredSae:
    """One SAE: what SAELens calls it, where it is on the hub, what Neuronpedia calls it."""

    release: str
    sae_id: str
    repo: str
    path: str
    """Folder or file in the repository; what it means depends on the layout."""
    model: str = ""
    layout: str = OWN_LAYOUT
    neuronpedia_id: str | None = None
    norm_scaling_factor: float | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    """What the registry states over the SAE's own configuration file."""

    @property
    def name(self) -> str:
        return f"{self.release} {self.sae_id}"


@cache
def registry() -> dict[str, dict[str, RegisteredSae]]:
    """release → SAE id → entry, in the registry's order. Takes about a second, once per process.

    Raises MissingExtraError if SAELens is not installed. Entries without an id and a path are
    omitted: they could not be loaded either.
    """
    folder = module_folder("sae_lens", "sae", "The registry of published SAEs")
    file = existing_file(folder / "pretrained_saes.yaml")
    # libyaml's loader is ten times as fast; PyYAML can be built without it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with file.open(encoding="utf-8") as opened:
        raw = yaml.load(opened, Loader=loader)
    return {
        str(release): {entry.sae_id: entry for entry in _entries(str(release), found)}
        for release, found in raw.items()
        if isinstance(found, dict)
    }


def _entries(release: str, raw: dict[str, Any]) -> Iterable[RegisteredSae]:
    for sae in raw.get("saes") or ():
        # One entry of SAELens 6.54 has its whole release nested in it; its own keys are sound.
        if isinstance(sae, dict) and "id" in sae and "path" in sae and "repo_id" in raw:
            yield RegisteredSae(
                release=release,
                sae_id=str(sae["id"]),
                repo=raw["repo_id"],
                path=str(sae["path"]),
                model=str(raw.get("model") or ""),
                layout=raw.get("conversion_func") or OWN_LAYOUT,
                neuronpedia_id=sae.get("neuronpedia"),
                norm_scaling_factor=sae.get("norm_scaling_factor"),
                overrides=raw.get("config_overrides") or {},
            )


def find_sae(release: str, sae_id: str) -> RegisteredSae:
    """The registry's entry. `release` may also be the hub repository, `owner/name`, and `sae_id`
    the path in it.

    A repository that the registry does not know is taken to hold SAELens folders. Raises DataError
    with the nearest valid releases or ids.
    """
    known = registry()
    if release in known:
        return _by_id(known[release], f"release {release}", sae_id)
    if "/" not in release:
        raise DataError(
            f'unknown release "{release}". {_offer(release, known)} '
            f"See: selfie prepare list {release.replace('_', ' ').replace('-', ' ')}"
        )
    of_repo = [entry for saes in known.values() for entry in saes.values() if entry.repo == release]
    if not of_repo:
        return RegisteredSae(release, sae_id, repo=release, path=sae_id)
    # A file may be in two releases of its repository; the one with labels is of more use.
    of_repo.sort(key=lambda entry: entry.neuronpedia_id is None)
    names: dict[str, RegisteredSae] = {}
    for entry in of_repo:
        names.setdefault(entry.sae_id, entry)
    for entry in of_repo:
        names.setdefault(entry.path, entry)
    return _by_id(names, f"repository {release}", sae_id)


def _by_id(saes: dict[str, RegisteredSae], where: str, sae_id: str) -> RegisteredSae:
    if sae_id in saes:
        return saes[sae_id]
    elsewhere = [release for release, others in registry().items() if sae_id in others]
    also = f" It exists in {', '.join(elsewhere[:4])}." if elsewhere else ""
    raise DataError(f'the {where} has no SAE "{sae_id}". {_offer(sae_id, saes)}{also}')


def _offer(word: str, choices: Iterable[str]) -> str:
    names = list(choices)
    lowered = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), lowered, n=3, cutoff=0.5)
    if close:
        return f"Nearest: {', '.join(lowered[name] for name in close)}."
    return f"Valid: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}."


def search_registry(
    words: Iterable[str] = (), model: str | None = None, labelled: bool = False
) -> list[RegisteredSae]:
    """Entries that contain every word (in release, id, repository, model or Neuronpedia id), case
    ignored; `model` must be part of the model's name; `labelled`: with a Neuronpedia id only."""
    wanted = [word.lower() for word in words]
    found = []
    for saes in registry().values():
        for entry in saes.values():
            if labelled and not entry.neuronpedia_id:
                continue
            if model and model.lower() not in entry.model.lower():
                continue
            about = (entry.release, entry.sae_id, entry.repo, entry.model, entry.neuronpedia_id)
            text = " ".join(part for part in about if part).lower()
            if all(word in text for word in wanted):
                found.append(entry)
    return found


def load_registered(entry: RegisteredSae, purpose: str, device: str = "cpu") -> SAE[Any]:
    """An SAE of the registry through SAELens' own loader, float32: all of it comes into memory.

    purpose: what SAELens is needed for, in the error where it is not installed.
    Raises MissingExtraError, DownloadError, or DataError with what SAELens reports.
    """
    with extra("sae", purpose):
        from sae_lens import SAE
    try:
        return SAE.from_pretrained(entry.release, entry.sae_id, device=device, dtype="float32")
    except OSError as error:
        raise DownloadError(f"{entry.name}: cannot be fetched ({first_line(error)}).") from error
    except Exception as error:  # SAELens raises whatever its many loaders raise
        raise DataError(f"{entry.name}: SAELens cannot load it ({first_line(error)}).") from error


def load_w_dec(entry: RegisteredSae, device: str = "cpu") -> Tensor:
    """`W_dec` of a layout that `sae_layouts` does not know: [d_sae, d_in], float32, on the CPU.

    Slow, and it loads the encoder too. Raises like `load_registered`.
    """
    sae = load_registered(entry, f"The layout {entry.layout}", device)
    return sae.W_dec.detach().cpu()
