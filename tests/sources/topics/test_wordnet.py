"""The graph of nouns: a small one by hand, and facts of the packaged one."""

from __future__ import annotations

import pytest

from selfie_adapters.sources.topics.wordnet import packaged_nouns, read_nouns

SMALL = """bird*
bird_of_prey* raptor*\t1
owl* hooter\t1
hawk*\t2
hooter*
pet*
tame-owl*\t4\t1

mice mouse
axes axe axis
"""


def test_a_small_graph():
    nouns = read_nouns(SMALL)
    assert nouns.lemmas[1] == ("bird of prey", "raptor")
    assert nouns.hypernyms == [(), (0,), (1,), (1,), (), (), (2, 5)]
    assert nouns.irregular == {"mice": ("mouse",), "axes": ("axe", "axis")}
    assert [nouns.names(i) for i in (1, 2, 6)] == [
        ["bird of prey", "raptor"],
        ["owl"],
        ["tame-owl"],
    ]
    assert nouns.senses("Hooters") == {2, 4}
    assert nouns.first_senses("hooter") == {4}
    assert nouns.first_senses("birds-of-prey") == {1}
    assert nouns.senses("tame owl") == nouns.senses("TAMEOWL") == {6}
    assert nouns.senses("") == nouns.first_senses("ostrich") == set()
    assert nouns.related([2]) == {1, 3, 6}  # hypernym, sibling, hyponym
    assert nouns.related([6]) == {2, 5}
    assert nouns.related([0]) == {1}
    assert nouns.related([]) == set()


def test_the_packaged_graph_is_all_of_wordnets_nouns():
    nouns = packaged_nouns()
    assert len(nouns.lemmas) == 82_115  # wnstats(7WN): synsets, word-sense pairs
    assert sum(len({word.lower() for word in words}) for words in nouns.lemmas) == 146_312
    roots = [nouns.lemmas[i] for i, above in enumerate(nouns.hypernyms) if not above]
    assert roots == [("entity",)]
    assert nouns.irregular["feet"] == ("foot",)


@pytest.mark.parametrize(
    ("name", "lemma"),
    [("owl", "hooter"), ("car", "automobile"), ("Paris", "French capital"), ("owls", "hooter")],
)
def test_first_senses(name, lemma):
    nouns = packaged_nouns()
    (synset,) = nouns.first_senses(name)
    assert lemma in nouns.lemmas[synset]
