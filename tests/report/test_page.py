from __future__ import annotations

import sys
from html.parser import HTMLParser

import pytest

from selfie_adapters.errors import MissingExtraError
from selfie_adapters.evaluation import ConditionResult, Interval
from selfie_adapters.report import condition_bars, loss_curve, write_page


def result(name):
    return ConditionResult(name, "a <b>meaning</b>", *[Interval(0.5, 0.4, 0.6, 60)] * 5)


def values(**changes):
    results = [result("trained"), result("zero vector")]
    return {
        "title": "Title & more",
        "summary": "s",
        "steps": ["one"],
        "placeholder": "<reponame>",
        "template": '<|im_start|>"<reponame>"',
        "candidates": 60,
        "results": results,
        "held_out": 400,
        "queries": 60,
        "verdict": "v",
        "bars": condition_bars(results, 60),
        "curve": loss_curve([1, 2], [3.0, 2.0], [(2, 2.5)]),
        "examples": [
            {"name": "owl", "text": "<script>alert(1)</script>", "log_prob": -1.0, "right": False}
        ],
        "exact": "none",
        "facts": {"model": "m"},
        **changes,
    }


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [
            v or "" for k, v in attrs if k in ("src", "href") and not (v or "").startswith("#")
        ]


def test_the_page_needs_no_script_and_no_other_file(tmp_path):
    path = tmp_path / "report.html"
    write_page(path, "demo", values())
    found = _Tags()
    found.feed(path.read_text(encoding="utf-8"))
    assert "script" not in found.tags
    assert found.links == []
    assert found.tags.count("svg") == 2
    assert "url(http" not in path.read_text()


def test_texts_of_the_model_are_escaped(tmp_path):
    path = tmp_path / "report.html"
    write_page(path, "demo", values())
    text = path.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;|im_start|&gt;" in text
    assert "Title &amp; more" in text
    assert "0.50 [0.40, 0.60]" in text


def test_the_same_numbers_draw_the_same_bytes():
    results = [result("trained"), result("random")]
    assert condition_bars(results, 60) == condition_bars(results, 60)


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("matplotlib.figure", lambda path: loss_curve([1], [1.0], [])),
        ("jinja2", lambda path: write_page(path / "x.html", "demo", {})),
    ],
)
def test_a_missing_extra_names_the_install_command(tmp_path, monkeypatch, package, make):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'selfie-adapters\[report\]'"):
        make(tmp_path)
    assert list(tmp_path.iterdir()) == []
