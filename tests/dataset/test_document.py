from __future__ import annotations

import pytest

from selfie_adapters.dataset.document import Items
from selfie_adapters.dataset.schema import Item

GIVEN = [Item(7, ["owl", "bird"], "train"), Item(0, ["é"], "test"), Item(2**62, ["x"], "val")]


def test_items_are_what_went_in():
    items = Items(GIVEN)
    assert [*items] == GIVEN
    assert items == GIVEN
    assert items != GIVEN[:2]
    assert items != [GIVEN[0], GIVEN[2], GIVEN[1]]
    assert (items[0], items[-1], items[1:]) == (GIVEN[0], GIVEN[2], GIVEN[1:])
    assert [*items.rows] == [7, 0, 2**62]
    with pytest.raises(IndexError):
        items[3]
    assert len(Items()) == 0
