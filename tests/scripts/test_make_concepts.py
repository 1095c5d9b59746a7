"""The concept list is made by a script: miniature WordNet files go in, known rows come out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGED = ROOT / "src/selfie_adapters/sources/concepts.jsonl"

LICENCE = ["  1 This software is free.", "  2", "  3 Copyright somebody"]
# offset, lexicographer file, lemmas, gloss
SYNSETS = [
    ("00000100", "05", ["owl", "bird_of_Minerva", "hooter"], 'night bird; "an owl hooted"'),
    ("00000200", "18", ["hooter"], "a person who hoots (very loudly)"),
    ("00000300", "13", ["soup"], "a liquid dish; of meat and vegetables"),
    ("00000400", "06", ["x-1"], "a name that is no plain word"),
    ("00000500", "18", ["lout"], "an offensive word for a person"),
    ("00000600", "13", ["tea"], "tiny"),
    ("00000700", "27", ["tin"], "a soft metal; " + "with a very long tail of words " * 4),
]


@pytest.fixture
def share(tmp_path):
    folder = tmp_path / "share/wordnet"
    folder.mkdir(parents=True)
    data, index = list(LICENCE), list(LICENCE)
    senses: dict[str, list[str]] = {}
    for offset, group, lemmas, gloss in SYNSETS:
        words = " ".join(f"{lemma} 0" for lemma in lemmas)
        data.append(f"{offset} {group} n {len(lemmas):02x} {words} 000 | {gloss}  ")
        for lemma in lemmas:
            senses.setdefault(lemma.lower(), []).append(offset)
    for lemma, offsets in senses.items():
        n = len(offsets)
        index.append(f"{lemma} n {n} 1 @ {n} 0 {' '.join(offsets)}  ")
    (folder / "data.noun").write_text("\n".join(data) + "\n")
    (folder / "index.noun").write_text("\n".join(index) + "\n")
    (folder / "cntlist.rev").write_text(
        "owl%1:05:00:: 1 3\nhooter%1:05:00:: 1 9\nsoup%1:13:00:: 1 5\nsoup%2:30:00:: 1 99\n"
    )
    return folder.parent


def make(share, out, size):
    out.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/make_concepts.py", share, "--out", out, "--size", size],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "concepts.jsonl").read_text().splitlines()]
    return rows, done.stdout


def test_rows_of_a_miniature(share, tmp_path):
    rows, shown = make(share, tmp_path / "out", "20")
    assert rows == [
        # the commonest lemma gives the name, the others of the synset are synonyms
        {
            "name": "hooter",
            "labels": ["hooter", "hooter, night bird", "owl", "bird of Minerva"],
            "group": "animal",
        },
        {
            "name": "soup",
            "labels": ["soup", "soup, a liquid dish; of meat and vegetables"],
            "group": "food",
        },
        {"name": "tin", "labels": ["tin", "tin, a soft metal"], "group": "substance"},
    ]
    assert (tmp_path / "out/WORDNET_LICENSE").read_text() == (
        "This software is free.\n\nCopyright somebody\n"
    )
    assert shown.startswith("3 concepts (2 with a sense count)")


def test_common_words_come_first_and_no_group_fills_the_list(share, tmp_path):
    # a group may have 15 % of the list: none of six, one of seven
    assert make(share, tmp_path / "six", "6")[0] == []
    assert len(make(share, tmp_path / "seven", "7")[0]) == 3


def test_the_packaged_list_is_what_such_a_script_makes():
    rows = [json.loads(line) for line in PACKAGED.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 8000
    assert len({row["name"].lower() for row in rows}) == 8000
    for row in rows:
        assert row["labels"][0] == row["name"]
        assert row["labels"][1].startswith(f"{row['name']}, ")
    several = sum(len(row["labels"]) > 2 for row in rows)
    assert several > 2000
    assert "Princeton" in PACKAGED.with_name("WORDNET_LICENSE").read_text(encoding="utf-8")
