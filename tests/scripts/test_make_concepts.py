"""The concept list is made by a script: miniature WordNet files go in, known rows come out."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGED = ROOT / "src/selfie_adapters/sources/topics/concepts.jsonl"
MORE = PACKAGED.with_name("more_concepts.jsonl.gz")

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
    (folder / "noun.exc").write_text("tins tin\n")
    return folder.parent


def make(share, out, size, *options):
    out.mkdir(exist_ok=True)
    script = ROOT / "scripts/make_concepts.py"
    done = subprocess.run(
        [sys.executable, script, share, "--out", out, "--size", size, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return read_rows(out / "concepts.jsonl"), done.stdout


def test_rows_of_a_miniature(share, tmp_path):
    rows, shown = make(share, tmp_path / "out", "20")
    assert rows == [
        # the commonest lemma gives the name, the others of the synset are synonyms
        {
            "name": "hooter",
            "labels": ["hooter", "hooter, night bird", "owl", "bird of Minerva"],
            "group": "animal",
            "split": "train",
        },
        {
            "name": "soup",
            "labels": ["soup", "soup, a liquid dish; of meat and vegetables"],
            "group": "food",
            "split": "train",
        },
        {
            "name": "tin",
            "labels": ["tin", "tin, a soft metal"],
            "group": "substance",
            "split": "train",
        },
    ]
    assert (tmp_path / "out/WORDNET_LICENSE").read_text() == (
        "This software is free.\n\nCopyright somebody\n"
    )
    assert shown.startswith("3 concepts (2 with a sense count)")


def test_common_words_come_first_and_no_group_fills_the_list(share, tmp_path):
    # a group may have 15 % of the list: none of six, one of seven
    assert make(share, tmp_path / "six", "6")[0] == []
    assert len(make(share, tmp_path / "seven", "7")[0]) == 3


def test_the_concept_called_like_no_concept_is_left_out(share, tmp_path):
    noun = share / "wordnet/data.noun"
    noun.write_text(noun.read_text().replace("n 01 soup", "n 01 nothing"))
    index = share / "wordnet/index.noun"
    index.write_text(index.read_text().replace("soup n", "nothing n"))
    assert [row["name"] for row in make(share, tmp_path / "out", "20")[0]] == ["hooter", "tin"]


def test_further_nouns_are_common_lower_case_and_share_nothing_with_held_out_ones(share, tmp_path):
    rows, _ = make(share, tmp_path / "seven", "7", "--more", "7")
    assert [row["name"] for row in rows] == ["hooter", "soup", "tin"]
    assert read_rows(tmp_path / "seven/more_concepts.jsonl.gz") == []
    # a group may have 15 % of the list, none of six
    make(share, tmp_path / "six", "6", "--more", "7")
    more = read_rows(tmp_path / "six/more_concepts.jsonl.gz")
    assert [row["name"] for row in more] == ["hooter", "soup", "tin"]
    assert {row["split"] for row in more} == {"train"}


def test_the_packaged_list_is_what_such_a_script_makes():
    rows = read_rows(PACKAGED)
    assert len(rows) == 8000
    assert len({row["name"].lower() for row in rows}) == 8000
    assert "nothing" not in {name.lower() for row in rows for name in names_of(row)}
    for row in rows:
        assert row["labels"][0] == row["name"]
        assert row["labels"][1].startswith(f"{row['name']}, ")
    several = sum(len(row["labels"]) > 2 for row in rows)
    assert several > 2000
    assert "Princeton" in PACKAGED.with_name("WORDNET_LICENSE").read_text(encoding="utf-8")


def test_no_word_of_the_packaged_lists_is_on_both_sides():
    """By rules written here: spelling variants, plurals, last words, words before "of"."""
    rows, more = read_rows(PACKAGED), read_rows(MORE)
    assert Counter(row["split"] for row in rows) == {"train": 6400, "val": 800, "test": 800}
    assert len(more) == 12000
    assert {row["split"] for row in more} == {"train"}
    assert not {row["name"].lower() for row in rows} & {row["name"].lower() for row in more}
    sides: dict[str, dict[str, str]] = {}
    for row in [*rows, *more]:
        for name in names_of(row):
            words = re.split(r"[\s_-]+", name.lower().replace("'", "").replace(".", ""))
            heads = {words[-1], words[words.index("of") - 1] if "of" in words[1:] else words[-1]}
            for text in {"".join(words), *heads}:
                for form in (text, *singulars(text)):
                    sides.setdefault(form, {})[row["split"]] = name
    assert {form: found for form, found in sides.items() if len(found) > 1} == {}
    # and the words of which the issue of leaks was seen first
    split = {row["name"]: row["split"] for row in rows}
    assert split["acre"] == split["acres"]
    assert split["shoe store"] == split["hardware store"] == split["store"]


def singulars(word):
    """Candidates for the singular: a rule per ending, and irregular ones met in the lists."""
    irregular = {"feet": "foot", "teeth": "tooth", "mice": "mouse", "geese": "goose"}
    irregular |= {"children": "child", "data": "datum", "media": "medium", "wives": "wife"}
    found = [irregular[word]] if word in irregular else []
    for ending, single in (("men", "man"), ("ies", "y"), ("es", ""), ("s", "")):
        stem = word.removesuffix(ending)
        if stem == word or len(stem) < 2 or word.endswith("ss"):
            continue
        if ending != "es" or stem.endswith(("s", "x", "z", "ch", "sh", "o")):
            found.append(stem + single)
    return found


def names_of(row):
    return [row["labels"][0], *row["labels"][2:]]


def read_rows(path):
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return [json.loads(line) for line in text.splitlines()]
