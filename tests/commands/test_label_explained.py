"""`selfie label --explain`: the labels of a vector, those with one text together."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console

from selfie_adapters.commands.label_tables import show_why
from selfie_adapters.files.json_lines import append_jsonl
from selfie_adapters.labelling.rows import LabelRow, row_fields

LONG = "references to maritime law and to the insurance of ships and their cargo in wartime"


def row(index, label, gain, sample, **more):
    numbers = {"log_prob": -2.0, "zero_log_prob": -2.0 - 4 * gain, "gain": gain, "tokens": 4}
    return LabelRow(
        dataset="nouns@l16",
        index=index,
        label=label,
        raw=label,
        sample=sample,
        seed=sample,
        ended=True,
        given="owl",
        equal=False,
        **{"scale": 1.0, "margin": 0.5, **numbers, **more},
    )


def shown(tmp_path, rows, width=80):
    for one in rows:
        append_jsonl(tmp_path / "labels-00000.jsonl", row_fields(one))
    console = Console(file=io.StringIO(), width=width)
    show_why(console, tmp_path / "labels-00000.jsonl")
    return console.file.getvalue()


def test_equal_texts_are_one_row_that_counts_them(tmp_path):
    text = shown(tmp_path, [row(3, "owl", 2, 0), row(3, " OWL", 1.5, 1), row(3, "hawk", 1, 2)])
    title, heading, *lines = text.splitlines()
    assert title.strip() == 'nouns@l16 3, given "owl"'
    assert heading.split() == "label times gain p vector p zero tokens margin".split()
    assert lines[0].split() == ["owl", "2", "2.00", "-0.50", "-2.50", "4", "+0.50"]
    assert lines[1].split()[:3] == ["hawk", "1", "1.00"]
    assert "owl" not in " ".join(lines[1:]).casefold()


def test_a_long_label_is_readable_at_80_columns(tmp_path):
    text = shown(tmp_path, [row(0, LONG, 1, 0), row(0, "law", 0.5, 1)])
    assert all(len(line) <= 80 for line in text.splitlines())
    pieces = [line[:33].strip() for line in text.splitlines()[2:5]]
    assert " ".join(pieces) == LONG  # complete, in lines of whole words


def test_scales_are_shown_where_there_are_several(tmp_path):
    one = row(0, "law", 0.5, 0)
    text = shown(tmp_path, [one, msgspec.structs.replace(one, label="tax", scale=2.0)])
    assert "scale" in text.splitlines()[1]
