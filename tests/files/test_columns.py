from __future__ import annotations

import pytest

from selfie_adapters.files.columns import Strings


def test_texts_are_what_went_in():
    given = ["owl", "", "naïve – „3“ 🦉", "a\nb"]
    texts = Strings(given[:2])
    texts.append(given[2])
    texts.extend(given[3:])
    assert [*texts] == given
    assert len(texts) == 4
    assert (texts[0], texts[2], texts[-1]) == (given[0], given[2], given[3])
    assert texts[1:3] == given[1:3]
    for outside in (4, -5):
        with pytest.raises(IndexError):
            texts[outside]
    assert [*Strings()] == []
    assert texts[:2] + Strings(["b"]) == [*given[:2], "b"]
    assert Strings(["b"]) + texts[:1] == ["b", given[0]]
