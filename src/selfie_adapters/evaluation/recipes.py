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
from selfie_adapters.errors import ConfigError

# Where a run is kept and what it shows do not change the adapter.
_ASIDE = {"seed", "experiment_name", "logging"}
_ASIDE_OF_TRAINING = {"checkpoint_dir", "resume_from_checkpoint"}
# A training file's path may hold other vectors later; the binding states what was trained on.
_BOUND = {"d_model", "template", "placeholder", "end", "layer"}
_BOUND |= {"chat", "question", "position", "no_concept"}

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


def subjects_of(adapters: Mapping[str, Adapter], more: Iterable[str] = ()) -> list[Subject]:
    """The subjects that loaded adapters make; more: names of what else is under evaluation."""
    stated = [{"recipe": name, "adapters": of} for name, of in recipes(adapters).items()]
    return subjects([*adapters, *more], stated)


def titles_of(results: Mapping[str, Any]) -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Condition → its title in the report, the conditions that share it, the recipe it is of.

    The recipe is "" for a recipe's controls and for what belongs to none.
    """
    conditions = [one["condition"] for one in results["conditions"]]
    found: dict[str, tuple[str, tuple[str, ...], str]] = {
        one: (one, (one,), "") for one in conditions
    }
    for recipe in results.get("recipes", []):  # not in results of earlier releases
        adapters = recipe["adapters"]
        for condition in conditions:
            control = condition.removeprefix(adapters[0])
            names = tuple(f"{name}{control}" for name in adapters)
            own = condition == adapters[0] or control.startswith((": ", ", "))
            if own and condition.startswith(adapters[0]) and {*names} <= {*conditions}:
                title = f"{recipe['recipe']}{control}, {len(names)} seeds"
                shared = title, names, "" if control else recipe["recipe"]
                found |= dict.fromkeys(names, shared)
    return found


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

    Their kind and the training vectors' block, position and question are the same too. A recipe is
    called as its adapters' names begin. Adapters that do not state a seed belong to none; of two
    with one seed the first belongs to it.
    """
    groups: dict[str, dict[int, str]] = {}
    for name, adapter in adapters.items():
        seed = adapter.record.config.get("seed")
        if isinstance(seed, int):
            groups.setdefault(_settings(adapter), {}).setdefault(seed, name)
    found: dict[str, list[str]] = {}
    for several in (group for group in groups.values() if len(group) > 1):
        names = [several[seed] for seed in sorted(several)]
        begin = _common_begin(names).rstrip("0123456789-_.#/ ").removesuffix("seed")
        begin = begin.rstrip("-_.#/ ") or " + ".join(names)
        taken = {*found, *adapters}
        found[begin if begin not in taken else " + ".join(names)] = names
    return found


def refuse_copies(digests: Mapping[str, str]) -> None:
    """Raise ConfigError if two adapters, name → digest of the file, are one.

    A copy would be reported, and compared, as one more adapter.
    """
    names: dict[str, str] = {}
    for name, digest in digests.items():
        if digest in names:
            raise ConfigError(
                f"adapters {names[digest]} and {name} are the same file. Give each adapter once."
            )
        names[digest] = name


def _common_begin(names: Sequence[str]) -> str:
    """The characters that all names begin with."""
    alike = takewhile(lambda characters: len({*characters}) == 1, zip(*names, strict=False))
    return "".join(characters[0] for characters in alike)


def _settings(adapter: Adapter) -> str:
    """Everything but the seed that decides an adapter."""
    kept = {key: value for key, value in adapter.record.config.items() if key not in _ASIDE}
    if isinstance(kept.get("training"), Mapping):
        kept["training"] = {
            key: value for key, value in kept["training"].items() if key not in _ASIDE_OF_TRAINING
        }
    shapes = {name: [*one.shape] for name, one in adapter.named_parameters()}
    bound = adapter.binding.model_dump(include=_BOUND) if adapter.binding else None
    return json.dumps([adapter.kind, shapes, bound, kept], sort_keys=True)
