"""Adapters of one recipe: trained with the same settings, by several seeds.

An adapter file states the settings it was trained with, so nobody has to declare them. What several
seeds of a recipe get is one result, with the seed as a level of the analysis
(`comparing.over_seeds`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from selfie_adapters.adapters import Adapter

# Where a run is kept and what it shows do not change the adapter.
_ASIDE = {"seed", "experiment_name", "logging"}
_ASIDE_OF_TRAINING = {"checkpoint_dir", "resume_from_checkpoint"}

SEEDS = "; several seeds: mean over seeds (lowest–highest), its interval has seeds as a level"
"""For the caption of a table with `over_members`."""


@dataclass(frozen=True)
class Subject:
    """One row of a report: an adapter, or those of one recipe."""

    name: str
    adapters: tuple[str, ...]

    @property
    def title(self) -> str:
        several = len(self.adapters) > 1
        return f"{self.name}, {len(self.adapters)} seeds" if several else self.name


def subjects(names: Iterable[str], recipes: Iterable[Mapping[str, Any]]) -> list[Subject]:
    """What a report has rows of, in the order of `names`: those of a recipe share one.

    recipes: as results.json has them; one that names anything else is skipped.
    """
    every = list(dict.fromkeys(names))
    of = {}
    for one in recipes:
        subject = Subject(one["recipe"], tuple(one["adapters"]))
        if {*subject.adapters} <= {*every}:
            of |= dict.fromkeys(subject.adapters, subject)
    return list(dict.fromkeys(of.get(name, Subject(name, (name,))) for name in every))


def over_members(
    members: Sequence[Mapping[str, Any] | None], found: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """What `tables.shown` shows of a subject: the interval that all its adapters have, or the mean
    over seeds with the lowest and the highest one.

    members: an interval per adapter. found: the interval over seeds, where it was computed. None
    where an adapter has none.
    """
    known = [one for one in members if one is not None]
    if not known or len(known) < len(members):
        return None
    if len(known) == 1 or (found is None and all(one == known[0] for one in known)):
        return {**known[0]}
    means = [one["mean"] for one in known]
    interval = found or {"mean": sum(means) / len(means), "low": None, "high": None}
    return {**interval, "lowest": min(means), "highest": max(means)}


def recipes(adapters: Mapping[str, Adapter]) -> dict[str, list[str]]:
    """Name of a recipe → names of its adapters, for settings that two seeds or more share.

    A recipe is called as its adapters' names begin. Adapters that do not state a seed belong to
    none.
    """
    groups: dict[str, dict[int, str]] = {}
    for name, adapter in adapters.items():
        config = adapter.record.config
        seed = config.get("seed")
        if isinstance(seed, int):
            groups.setdefault(_settings(config), {}).setdefault(seed, name)
    found: dict[str, list[str]] = {}
    for several in (group for group in groups.values() if len(group) > 1):
        names = [several[seed] for seed in sorted(several)]
        begin = _common_begin(names).rstrip("0123456789-_.#/ ").removesuffix("seed")
        begin = begin.rstrip("-_.#/ ") or " + ".join(names)
        found[begin if begin not in found else " + ".join(names)] = names
    return found


def _common_begin(names: Sequence[str]) -> str:
    """The characters that all names begin with."""
    alike = takewhile(lambda characters: len({*characters}) == 1, zip(*names, strict=False))
    return "".join(characters[0] for characters in alike)


def _settings(config: Mapping[str, Any]) -> str:
    """Everything but the seed that decides an adapter."""
    kept = {key: value for key, value in config.items() if key not in _ASIDE}
    if isinstance(kept.get("training"), Mapping):
        kept["training"] = {
            key: value for key, value in kept["training"].items() if key not in _ASIDE_OF_TRAINING
        }
    return json.dumps(kept, sort_keys=True)
