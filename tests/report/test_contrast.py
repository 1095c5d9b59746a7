"""Contrast of text on every page, computed from the colors of the style sheets (WCAG 2)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import selfie_adapters.report

TEMPLATES = Path(selfie_adapters.report.__file__).parent / "templates"
LEAST = 4.5


def schemes(sheet):
    """The colors by name, light and dark."""
    text = (TEMPLATES / sheet).read_text(encoding="utf-8")
    found = [dict(re.findall(r"--(\S+): (#\w{6});", block)) for block in blocks(text)]
    assert len(found) == 2
    assert found[0].keys() == found[1].keys()
    return found


def blocks(text):
    return re.findall(r":root \{(.*?)\}", text, re.DOTALL)


def linear(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]


def luminance(of):
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), of, strict=True))


def contrast(one, other):
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def srgb_mix(one, other, share):
    """Linear light of `share` of `one` and the rest of `other`, mixed as color-mix(in srgb)."""

    def parts(color):
        return [int(color[i : i + 2], 16) for i in (1, 3, 5)]

    mixed = [share * a + (1 - share) * b for a, b in zip(parts(one), parts(other), strict=True)]
    return linear("#" + "".join(f"{round(c):02x}" for c in mixed))


_LMS = ((0.4122214708, 0.5363325363, 0.0514459929), (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005))  # fmt: skip
_RGB = ((4.0767416621, -3.3077115913, 0.2309699292), (-1.2684380046, 2.6097574011, -0.3413193965),
        (-0.0041960863, -0.7034186147, 1.7076147010))  # fmt: skip


def times(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def oklab_mix(one, other, share):
    """As srgb_mix, mixed as color-mix(in oklab): the cube roots of LMS are mixed, since OKLab is a
    linear map of them (Ottosson, "A perceptual color space for image processing")."""
    roots = [[c ** (1 / 3) for c in times(_LMS, linear(color))] for color in (one, other)]
    mixed = [share * a + (1 - share) * b for a, b in zip(*roots, strict=True)]
    return times(_RGB, [c**3 for c in mixed])


def test_the_formulas_are_right():
    white, black = linear("#ffffff"), linear("#000000")
    assert contrast(white, black) == pytest.approx(21)
    assert contrast(linear("#767676"), white) == pytest.approx(4.54, abs=0.01)
    assert oklab_mix("#ff0000", "#0000ff", 1.0) == pytest.approx(linear("#ff0000"), abs=1e-5)
    # color-mix(in oklab, white, black): L = 0.5, which is #636363
    assert oklab_mix("#ffffff", "#000000", 0.5) == pytest.approx(linear("#636363"), abs=0.002)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_of_reports_is_readable(scheme):
    colors = schemes("page.css")[scheme]
    for paper in ("page", "panel"):
        for ink in ("ink", "soft", "label", "right", "related", "wrong"):
            assert contrast(linear(colors[ink]), linear(colors[paper])) >= LEAST, (ink, paper)
        for mark in (
            "own",
            "control",
            "ring",
            "edge",
        ):  # WCAG 1.4.11: parts of figures and controls
            assert contrast(linear(colors[mark]), linear(colors[paper])) >= 3, (mark, paper)
    sheet = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    (share,) = re.findall(
        r"color-mix\(in srgb, var\(--own\) calc\(var\(--shade\) \* (\d+)%\)", sheet
    )
    for step in range(11):  # cells of a matrix
        paper = srgb_mix(colors["own"], colors["page"], step / 10 * int(share) / 100)
        assert contrast(linear(colors["ink"]), paper) >= LEAST, step


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_of_readings_is_readable(scheme):
    colors = schemes("grid.css")[scheme]
    for paper in ("page", "panel", "low"):
        for ink in ("ink", "soft", "doubt", "ring"):
            assert contrast(linear(colors[ink]), linear(colors[paper])) >= LEAST, (ink, paper)
    for paper in ("page", "panel"):
        assert contrast(linear(colors["edge"]), linear(colors[paper])) >= 3
        assert contrast(linear(colors["button"]), linear(colors[paper])) >= LEAST
    assert contrast(linear(colors["button"]), linear(colors["on-button"])) >= LEAST
    for step in range(21):  # cells, from no color to full color
        paper = oklab_mix(colors["high"], colors["low"], step / 20)
        assert contrast(linear(colors["ink"]), paper) >= LEAST, step
    here = srgb_mix(colors["ring"], colors["panel"], 0.16)
    assert contrast(linear(colors["ink"]), here) >= LEAST


@pytest.mark.parametrize("sheet", ["page.css", "grid.css", "report.css", "serve.html", "demo.html"])
def test_no_text_has_a_color_of_its_own_or_is_made_pale(sheet):
    """Only the variables that the tests above check, and no opacity."""
    text = (TEMPLATES / sheet).read_text(encoding="utf-8")
    rest = re.sub(r":root \{.*?\}", "", text, flags=re.DOTALL)
    colors = re.findall(r"(?<![-\w])color: ([^;}]+)", rest)
    allowed = {"inherit", "ink", "soft", "label", "right", "related", "wrong"}
    allowed |= {"doubt", "ring", "page", "button", "on-button"}
    names = {re.sub(r"var\(--([\w-]+)\)", r"\1", one).strip() for one in colors}
    assert names - allowed == set()
    assert "opacity" not in rest
