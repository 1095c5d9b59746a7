from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import ClassVar

import pytest

from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.output import visible
from selfie_adapters.reading.controls import RandomControl
from selfie_adapters.reading.plan import PromptToken, ReadingPlan
from selfie_adapters.reading.read import Cell, Reading
from selfie_adapters.report import reading_page
from selfie_adapters.report.reading_page import (
    measure,
    names_word,
    shown_cell,
    shown_token,
    trained_layers,
    write_reading_page,
)

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x1b[31m\u202e\n"


def cell(layer=0, position=0, label="owl", gain=0.5):
    return Cell(layer, position, label, label + '"', -1.5, 3, True, gain, None)


def reading(label="owl", prompt="a", tokens=2, layers=(0, 1)):
    made = tuple(PromptToken(i, i, f" {prompt}"[:3], special=False) for i in range(tokens))
    plan = ReadingPlan(prompt, "none", made, layers, tuple(range(tokens)))
    return Reading(plan, tuple(cell(*place, label) for place in plan.cells()))


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "action", "srcset")]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]


def written(tmp_path, *args, **options):
    write_reading_page(tmp_path / "r.html", *args, **options)
    return (tmp_path / "r.html").read_text(encoding="utf-8")


def data(text):
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(block)


def test_the_page_asks_for_nothing_from_outside(tmp_path):
    text = written(tmp_path, reading(), {"model": "m"})
    page = _Page(text)
    assert page.links == []
    assert page.handlers == []
    assert page.tags.count("script") == 2
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|https?://", text)


def test_no_text_becomes_markup(tmp_path):
    text = written(tmp_path, reading(HOSTILE, HOSTILE), {"model": HOSTILE}, find=HOSTILE)
    page = _Page(text)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert page.handlers == []
    assert "\x1b" not in text
    assert "\u202e" not in text
    found = data(text)
    label = found["readings"][0]["cells"][0]["label"]
    assert label == HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").replace(
        "\n", "\\n"
    )


def test_the_data_of_the_page_is_that_of_the_reading(tmp_path):
    trust = Confidence({"gain": 1.0}, 0.0, 0.7)
    found = data(written(tmp_path, reading(), {}, trust, trained_layers=(1,), find="owl"))
    assert (found["layers"], found["positions"], found["find"]) == ([0, 1], [0, 1], "owl")
    (one,) = found["readings"]
    assert one["measure"] == {
        "name": "confidence", "zero": 0.0, "full": 1.0, "threshold": 0.7, "random": 0
    }  # fmt: skip
    assert one["trained_layers"] == [1]
    assert [(c["layer"], c["position"], c["label"], c["gain"]) for c in one["cells"]] == [
        (layer, position, "owl", 0.5) for position in (0, 1) for layer in (0, 1)
    ]


def test_what_is_too_much_for_a_page_is_left_out_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(reading_page, "CELLS_ON_A_PAGE", 7)
    text = written(tmp_path, reading(tokens=5), {})
    found = data(text)
    assert found["positions"] == [0, 1, 2]  # three columns of two layers
    assert len(found["tokens"]) == 3
    assert len(found["readings"][0]["cells"]) == 6
    assert "4 cells more are in reading.json" in text


def test_numbers_that_are_none_are_null():
    row = shown_cell(cell(gain=float("nan")))
    assert row["gain"] is None
    assert row["log_prob"] == -1.5
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("a\tb\nc", "a\\tb\\nc"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\u2028", "\\u2028"),
        ("\ud83e", "\\ud83e"),
        ("🏳️‍🌈 שלום نمی‌خواهم é", "🏳️‍🌈 שלום نمی‌خواهم é"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text, shown):
    assert visible(text) == shown


def test_a_leading_blank_of_a_token_is_seen():
    assert shown_token(PromptToken(0, 0, " owl", special=False))["text"] == "·owl"


@pytest.mark.parametrize(
    ("label", "word", "named"),
    [
        ("a barn owl", "Owl", True),
        ("(owl)", "owl", True),
        ("owls", "owl", True),
        ("a barn owl", "barn owls", True),
        ("growl", "owl", False),
        ("bus", "bu", False),
        ("a barn owl", "barn owl", True),
        ("a barn, owl", "barn owl", True),
        ("owl barn", "barn owl", False),
        ("STRASSE", "straße", True),
        ("cafe\u0301", "café", True),
        ("שלום", "שלום", True),
        ("anything", "", False),
        ("anything", "?!", False),
    ],
)
def test_a_label_names_whole_words_case_and_plural_aside(label, word, named):
    assert names_word(label, word) is named


def test_without_a_calibration_color_is_the_gain_from_the_random_directions_on():
    plain = measure(None)
    assert (plain["name"], plain["zero"], plain["full"], plain["random"]) == ("gain", 0, 3, 0)
    scaled = measure(None, (-0.5, 0.25, 1.5))
    assert (scaled["zero"], scaled["full"], scaled["random"]) == (1.5, 4.5, 3)
    assert measure(None, (-2.0, -1.0))["zero"] == 0.0  # the zero vector is a control as well
    trust = Confidence({"gain": 1.0}, 0.0, 0.7)
    assert measure(trust, (9.0,))["zero"] == 0.0


def test_trained_layers_are_those_of_the_adapter_and_its_specialists():
    class Bound:
        binding = None
        specialists: ClassVar = {(20, "-1"): None, (8, "name"): None}

    assert trained_layers(Bound()) == [8, 20]
    Bound.binding = type("B", (), {"layer": 12})
    assert trained_layers(Bound()) == [8, 12, 20]
    Bound.binding.layer = None
    Bound.specialists = {}
    assert trained_layers(Bound()) == []


def test_the_page_states_its_random_directions(tmp_path):
    known = replace(reading(), control=RandomControl((0.5, 1.25), 2))
    text = written(tmp_path, known, {})
    assert "highest gain of 2 random directions" in text
    assert data(text)["readings"][0]["measure"]["zero"] == 1.25
    trust = Confidence({"gain": 1.0}, 0.0, 0.7)
    assert "gain of 2 random" not in written(tmp_path, known, {}, trust)
