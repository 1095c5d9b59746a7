"""Which kind of published file is this, and which result files are shards of one evaluation?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import msgspec

from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.published.hit_rates import ResultFile
from selfie_adapters.files import read_plain
from selfie_adapters.files.json_text import parse_json_as

FileKind = Literal["results", "labels", "retrieval summary", "ranks"]
_Content = dict[str, msgspec.Raw] | list[dict[str, msgspec.Raw]]

_KEYS: dict[str, FileKind] = {
    "evaluation_mode": "results",
    "generated_labels": "labels",
    "enriched_labels": "labels",
    "results_by_scale": "retrieval summary",
}
_SHARD = re.compile(r"_shard_([0-9]{1,9})_of_([0-9]{1,9})_")


def kind_of(path: str | Path) -> FileKind:
    """The kind of a published file, by its keys. Raises MissingFileError, DataError."""
    either = cast("type[_Content]", _Content)
    content = parse_json_as(read_plain(path), str(path), either)
    if isinstance(content, list):
        if content and "rank" in content[0]:
            return "ranks"
        keys = list(content[0])[:5] if content else []
        found = f"a list of objects with {', '.join(keys)}" if keys else "an empty list"
    else:
        for key, kind in _KEYS.items():
            if key in content:
                return kind
        found = f"the keys {', '.join(list(content)[:5]) or '(none)'}"
    raise DataError(
        f"{path}: no published result or label file: one of {', '.join(_KEYS)}, or a list of rows "
        f"with rank is expected, found {found}."
    )


def evaluations(files: Sequence[ResultFile]) -> list[list[ResultFile]]:
    """The files, evaluation by evaluation: shards of one are together, in order of their numbers.

    Files are shards of one evaluation if they state their numbers and the same mode and settings.
    Raises DataError for a shard that is given twice.
    """
    groups: dict[tuple[str, str, Path | None], list[ResultFile]] = {}
    for one in files:
        alone = one.path if one.shard is None else None
        group = groups.setdefault((one.mode, one.config, alone), [])
        for other in group:
            if other.shard == one.shard:
                raise DataError(
                    f"{other.path} and {one.path} are both shard {one.shard} of one evaluation. "
                    "Give each once; a file of another evaluation has other settings."
                )
        group.append(one)
    return [sorted(group, key=lambda one: one.shard or 0) for group in groups.values()]


def missing_shards(group: Sequence[ResultFile]) -> int:
    """How many shards are missing, as far as the files' names state their number."""
    stated = [int(match[2]) for one in group if (match := _SHARD.search(one.path.name))]
    return max(0, max(stated) - len(group)) if stated else 0
