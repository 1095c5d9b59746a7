from __future__ import annotations

import re

import pytest

from selfie_adapters.report.figures import loss_matrix

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
