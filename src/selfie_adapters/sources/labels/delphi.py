"""Explanations and scores that delphi writes: one JSON file for each latent.

explanations/{hookpoint}_latent{number}.txt holds a JSON string, scores/{scorer}/{the same name} a
list of examples with `activating` and `prediction` (github.com/EleutherAI/delphi).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfie_adapters.errors import DataError
from selfie_adapters.files import read_json
from selfie_adapters.sources.labels.explanations import latent_number
from selfie_adapters.sources.labels.label_set import LabelSet

_NAME = re.compile(r"(?:(?P<site>.*?)_?(?:latent|feature))?_?(?P<number>[0-9]{1,15})")


def is_explanations_folder(path: Path) -> bool:
    """Whether `path` is a folder, or explanations/HOOKPOINT of one that holds several."""
    return path.is_dir() or (not path.exists() and path.parent.is_dir() and _has(path))


def _has(path: Path) -> bool:
    return any(site == path.name for site, _, _ in _files(path.parent))


def read_delphi(path: str | Path) -> LabelSet:
    """The explanations of one hookpoint, by latent; the report has the scores next to them.

    path: the folder explanations/, or explanations/HOOKPOINT where it holds several hookpoints.
    Blank explanations are dropped and counted. Raises DataError naming the file for what is no JSON
    string, for a latent that occurs twice, and for a folder without explanations.
    """
    folder, site = Path(path), None
    if not folder.is_dir():
        folder, site = folder.parent, folder.name
    files = _files(folder)
    sites = sorted({one for one, _, _ in files})
    if site is None and len(sites) > 1:
        listed = ", ".join(f"{folder}/{one}" for one in sites[:6])
        raise DataError(f"{folder}: explanations of {len(sites)} hookpoints. Give one: {listed}.")
    labels: dict[int, list[str]] = {}
    blank = 0
    for own, latent, file in files:
        if site is not None and own != site:
            continue
        text = read_json(file)
        if not isinstance(text, str):
            raise DataError(f"{file}: {text!r:.40}; the explanation as a JSON string is expected.")
        if latent in labels:
            raise DataError(f"{file}: latent {latent} occurs twice in {folder}. Remove one.")
        if text.strip():
            labels[latent] = [text.strip()]
        else:
            blank += 1
    if not labels:
        raise DataError(
            f"{path}: no explanations; files such as layers.5_latent12.txt are expected."
        )
    report = [f"{len(labels)} explanations of delphi"]
    if blank:
        report.append(f"{blank} empty explanations, dropped")
    report += _score_report(folder.parent / "scores", site or sites[0])
    origin = {"labels_from": "delphi", "hookpoint": site or sites[0]}
    return LabelSet(dict(sorted(labels.items())), report=report, origin=origin)


def read_delphi_scores(scores: str | Path, site: str) -> dict[str, dict[int, float]]:
    """Balanced accuracy of each latent's explanation, by scorer: the mean of the shares of
    activating and of other examples that are predicted right.

    scores: the folder scores/; site: the hookpoint. Latents without examples of both kinds, or
    whose predictions all failed, have no score. Raises DataError naming the file.
    """
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for folder in sorted(one for one in Path(scores).iterdir() if one.is_dir()):
        for own, latent, file in _files(folder):
            if own == site and (score := _balanced_accuracy(file)) is not None:
                found[folder.name][latent] = score
    return dict(found)


def _score_report(scores: Path, site: str) -> list[str]:
    if not scores.is_dir():
        return []
    return [
        f"scored by {scorer}: {len(of)} latents, mean balanced accuracy "
        f"{sum(of.values()) / len(of):.3f}"
        for scorer, of in read_delphi_scores(scores, site).items()
    ]


def _balanced_accuracy(file: Path) -> float | None:
    examples = read_json(file)
    if not isinstance(examples, list):
        raise DataError(f"{file}: {examples!r:.40}; a list of scored examples is expected.")
    right: dict[bool, list[bool]] = {True: [], False: []}
    for number, one in enumerate(examples):
        if not isinstance(one, Mapping):
            raise DataError(f"{file}, example {number}: {one!r:.40}; an object is expected.")
        activating, prediction = _truth(file, number, one, "activating"), one.get("prediction")
        if activating is None or prediction is None:
            continue
        predicted = _truth(file, number, one, "prediction")
        right[activating].append(predicted == activating)
    if not (right[True] and right[False]):
        return None
    return sum(sum(some) / len(some) for some in right.values()) / 2


def _truth(file: Path, number: int, example: Mapping[str, Any], key: str) -> bool | None:
    """A value that is true or false, 0 to 1 (predicted from 0.5 on), or absent."""
    value = example.get(key)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and 0 <= value <= 1:
        return value >= 0.5
    raise DataError(f"{file}, example {number}: {key} is {value!r:.40}; true or false is expected.")


def _files(folder: Path) -> list[tuple[str, int, Path]]:
    """(hookpoint, latent, file) of a folder's files, by name."""
    found = []
    for file in sorted(folder.iterdir()):
        match = _NAME.fullmatch(file.stem) if file.suffix in (".txt", ".json") else None
        if match and file.is_file():
            found.append((match["site"] or "", latent_number(match["number"]), file))
    return found
