"""The README's picture, from a reading."""

from __future__ import annotations

from xml.etree import ElementTree

import reading_figure


def cell(layer, position, label, lens, withheld=None):
    names = ("layer", "position", "label", "lens", "withheld")
    return dict(zip(names, (layer, position, label, lens, withheld), strict=True))


def test_labels_are_next_to_the_lens_and_silent_cells_are_dots():
    reading = {
        "settings": {"prompt": "<owl> & co", "layers": [8, 12], "positions": [3, 4]},
        "tokens": [{"position": 3, "text": " owl"}, {"position": 4, "text": "<b>"}],
        "cells": [
            cell(8, 3, "owl\x1b", "aughed"),
            cell(12, 3, "a bird that hunts at night", "I"),
            cell(8, 4, "secret", "x", "no concept"),
            cell(12, 4, "secret", "x", "below threshold"),
        ],
    }
    root = ElementTree.fromstring(reading_figure.picture(reading))
    texts = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[7:] == [
        *("owl", "owl\\x1b", "aughed", "a bird that hu…", "I"),
        *("<b>", "·", "x", "·", "x"),
    ]
    assert "secret" not in "".join(texts)
    assert root[0].text == "<owl> & co"
