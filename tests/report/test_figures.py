from __future__ import annotations

import re

import pytest

from selfie_adapters.evaluation.naming.results import Panel
from selfie_adapters.report.figures import loss_matrix, naming_by_block

pytest.importorskip("matplotlib")


def test_the_matrix_shades_each_column_from_its_own_lowest():
    figure = loss_matrix(["a", "b"], ["easy", "hard"], [[1.0, 9.0], [2.0, 8.0]])
    assert figure.startswith("<svg")
    assert figure == loss_matrix(["a", "b"], ["easy", "hard"], [[1.0, 9.0], [2.0, 8.0]])
    # other numbers with the same order in each column: the same shades, other texts
    other = loss_matrix(["a", "b"], ["easy", "hard"], [[3.0, 90.0], [4.0, 80.0]])
    images = [re.search(r"<image[^>]*>", svg)[0] for svg in (figure, other)]
    assert images[0] == images[1]


def test_equal_losses_divide_by_nothing():
    assert loss_matrix(["a", "b"], ["x"], [[1.0], [1.0]]).startswith("<svg")


def panels():
    points = [(8, 0.0, 0.0, 0.1), (24, 1.0, 0.9, 1.0)]
    lines = dict.fromkeys(("adapter", "logit lens", "ridge probe", "untrained"), points)
    one_block = {"adapter": points[:1]}
    return [Panel("the concept's own token", lines), Panel("last token", one_block)]


def test_shares_by_block_are_one_narrow_panel_per_position_kind():
    figure = naming_by_block(panels())
    assert figure == naming_by_block(panels())
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure).groups())
    assert width < 340  # points: 9-point text stays readable on a phone
    assert height > width
    assert len(figure) < 100_000
    alone = naming_by_block(panels()[1:])
    assert len(alone) < len(figure)
