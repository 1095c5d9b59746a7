from __future__ import annotations

import pytest

from selfie_adapters.config.lists import parse_selection
from selfie_adapters.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("4:28:4", [4, 8, 12, 16, 20, 24]),
        ("0,5,9", [0, 5, 9]),
        ("-1", [29]),
        ("-3:", [27, 28, 29]),
        (" 9 , 5 , 9 ", [9, 5]),
        ("2,0:4", [2, 0, 1, 3]),
        ("::10", [0, 10, 20]),
        ("28:99", [28, 29]),
        ("2::-1", [2, 1, 0]),
    ],
)
def test_numbers_and_slices_as_in_python(text, numbers):
    assert parse_selection(text, 30, "--layers") == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("30", r"--layers: 30 is out of range; choose from 0 to 29 \(or -30 to -1"),
        ("-31", "-31 is out of range"),
        ("a", "--layers: 'a' is neither a number nor a slice"),
        ("", "'' is neither"),
        ("1,,2", "'' is neither"),
        ("1:2:3:4", "'1:2:3:4' is neither"),
        ("::0", "'::0' is neither"),
        ("1.5", "'1.5' is neither"),
        ("5:5", "'5:5' chooses none of 0 to 29"),
    ],
)
def test_anything_else_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_selection(text, 30, "--layers")
