from __future__ import annotations

import sys
from html.parser import HTMLParser

import pytest

from demo_results import results
from selfie_adapters.commands.demo_report import page_values
from selfie_adapters.errors import MissingExtraError
from selfie_adapters.evaluation import Interval
from selfie_adapters.report import condition_bars, loss_curve, write_page


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


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "report.html"
    write_page(path, "demo", page_values(results(tmp_path)))
    return path.read_text(encoding="utf-8")


def test_the_page_needs_no_script_and_no_other_file(page):
    found = _Tags()
    found.feed(page)
    assert "script" not in found.tags
    assert found.links == []
    assert found.tags.count("svg") == 2
    assert "<metadata>" not in page
    assert "url(http" not in page


def test_texts_of_the_model_are_escaped(page):
    assert "&lt;script&gt;document.title=" in page
    assert "&lt;|im_start|&gt;" in page
    assert "what &lt;b&gt;adapter&lt;/b&gt; is" in page
    assert "\u202e" not in page


def test_the_page_leads_with_the_reading_and_the_labels(page):
    order = [
        page.index(text)
        for text in ("Eiffel Tower</span>", "concept 0</bdi> →", "<td", "60 [", "soft token</mark>")
    ]
    assert order[:2] == sorted(order[:2])
    assert order[1] < order[3] < order[4]
    assert "60 [39, 78]" in page  # 12 of 20, by Wilson's formula
    assert page.count('class="label silent"') == 2 * 4  # the, of, full stop, line break


def test_the_same_numbers_draw_the_same_bytes():
    panels = {"block 1": [("adapter", Interval(0.5, 0.4, 0.6, 9), Interval(0.7, 0.6, 0.8, 9))]}
    assert condition_bars(panels) == condition_bars(panels)
    assert condition_bars(panels) != condition_bars({"block 2": panels["block 1"]})


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
