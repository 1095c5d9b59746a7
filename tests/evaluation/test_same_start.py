"""Names that begin alike: chosen by hand from short lists."""

from __future__ import annotations

from selfie_adapters.evaluation import same_start
from selfie_adapters.evaluation.same_start import StartIndex


def test_those_that_share_most_letters_come_first_and_none_is_about_the_same():
    pool = ["owner", "Owls", "owl monkey", "tawny owl", "Owen", "owlet", "oven", "own", "The owing"]
    assert StartIndex(pool).of("owl", 9) == ["Owen", "The owing", "own", "owner"]
    assert StartIndex(pool).of("an owl", 2) == ["Owen", "The owing"]
    assert StartIndex(pool).of("owl", 9, about=["to own", "Owen"]) == ["The owing", "owner"]
    longer = ["spade", "special, mad", "speech", "speaker", "spear, shield", "sparrow"]
    assert StartIndex(longer).of("speak, talk", 3) == ["spear, shield", "special, mad", "speech"]


def test_where_the_pool_has_none_the_packaged_concepts_are_taken(monkeypatch):
    concepts = same_start._by_start(["ironing board", "iron", "iris", "Iran", "zebra"])
    monkeypatch.setattr(same_start, "_concepts", lambda: concepts)
    assert StartIndex(["Peru", "iron ore"]).of("iron", 5) == ["Iran", "iris"]
    assert StartIndex(["Iraq"]).of("iron", 5) == ["Iraq"]
    assert StartIndex(["Peru"]).of("quiz", 5) == []


def test_the_packaged_concepts_have_one_for_a_common_noun():
    (found,) = StartIndex([]).of("owl", 1)
    assert found.startswith("ow")
    assert "owl" not in found


def test_texts_with_fewer_than_two_letters_have_none():
    assert [StartIndex(["a", "x", "ab"]).of(text, 3) for text in ("", "a", "?", "the")] == [[]] * 4
