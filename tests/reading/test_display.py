"""A reading in a notebook, and in a terminal by its repr."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import pytest

from selfie_adapters.reading.plan import PromptToken, ReadingPlan
from selfie_adapters.reading.read import Cell, Reading

TOKENS = (
    PromptToken(0, 5, "<b>", special=False),
    PromptToken(1, 6, " owl\u202e", special=False),
)


def cell(layer=3, position=0, label="owl", **changes):
    values = {"raw": label, "log_prob": -1.0, "tokens": 2, "ended": True, "gain": 1.5}
    return Cell(layer, position, label, **{**values, "confidence": None, **changes})


def reading(*cells, layers=(3, 7), tokens=TOKENS):
    plan = ReadingPlan("two owls", "none", tokens, layers, tuple(range(len(tokens))))
    return Reading(plan, cells)


class Table(HTMLParser):
    """Text of each row's cells, and every tag."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.tags = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows:
            self.rows[-1][-1] += data


def test_layers_go_up_and_tokens_across():
    shown = Table(reading(cell(3, 0, "low"), cell(7, 1, "high"))._repr_html_())
    assert shown.rows == [["7", "", "high"], ["3", "low", ""], ["layer", "<b>", "·owl\\u202e"]]


def test_nothing_that_a_model_wrote_is_markup():
    label = '<img src=x onerror="alert(1)">\u202e'
    shown = Table(reading(cell(label=label, lens="<script>"))._repr_html_())
    assert shown.rows[1][1] == label.replace("\u202e", "\\u202e") + "<script>"
    assert {tag for tag, _ in shown.tags} <= {
        *("div", "table", "tbody", "tfoot", "tr", "th"),
        *("td", "bdi", "br", "small", "i"),
    }
    assert not any({"src", "href", "class", "onerror"} & attrs.keys() for _, attrs in shown.tags)


@pytest.mark.parametrize(
    ("changes", "text", "title", "alpha"),
    [
        ({}, "owl", "gain 1.50 nats per token", "0.30"),
        ({"gain": 9.0}, "owl", "gain 9.00 nats per token", "0.60"),
        ({"gain": -1.0}, "owl", "gain -1.00 nats per token", "0.00"),
        ({"gain": math.nan}, "owl", "gain nan nats per token", "0.00"),
        ({"confidence": 0.5}, "owl", "confidence 50%", "0.30"),
        ({"repeats": True}, "owl ↺", "gain 1.50 nats per token", "0.30"),
        ({"label": ""}, "∅", "gain 1.50 nats per token", "0.30"),
        ({"withheld": "no concept"}, "·", "withheld: no concept", None),
    ],
)
def test_a_cell_shows_its_label_and_how_far_to_believe_it(changes, text, title, alpha):
    shown = Table(reading(cell(**changes))._repr_html_())
    assert shown.rows[1][1] == text
    (attrs,) = [attrs for tag, attrs in shown.tags if tag == "td" and "title" in attrs]
    assert attrs["title"] == title
    assert attrs.get("style") == (None if alpha is None else f"background:rgba(11,107,116,{alpha})")


def test_a_long_prompt_is_cut_and_says_so():
    tokens = tuple(PromptToken(i, 5, "a", special=False) for i in range(3000))
    html = reading(cell(), tokens=tokens)._repr_html_()
    assert "<p>500 more tokens are not shown.</p>" in html
    assert len(Table(html).rows[0]) == 1 + 2500


def test_it_prints_on_one_line():
    assert repr(reading(cell(), cell(7))) == "Reading(2 layers, 2 tokens, 2 cells)"
