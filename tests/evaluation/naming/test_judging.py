"""Right, related, wrong: words whose relations in WordNet 3.0 were looked up by hand."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from selfie_adapters.evaluation.naming.judging import is_exact, judge, names_of, shares_first_letter
from selfie_adapters.sources.topics.reading import more_topics, packaged_topics
from selfie_adapters.sources.topics.topic import Topic

OWL = Topic(("owl", "owl, nocturnal bird of prey with hawk-like beak"), name="owl")


def topic(name, *labels):
    return Topic((name, *labels), name=name)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("owl", "owl"),
        ("  OWL\n", "owl"),
        ("an owl", "owl"),
        ("The Owls.", "owl"),
        ("Bird-of-Minerva", "owl"),
        ("birds of night", "owl"),
        ("acre", "acres"),
        ("auto", "car"),
        ("men of letters", "man of letters"),
        ("foot", "feet"),
        ("shoe store", "shoe-store"),
        ("The Hague", "The Hague"),
        ("Hague", "The Hague"),
        ("zzyx", "Zzyx"),  # not in WordNet
        ("?!", "?!"),  # no words: to the letter
    ],
)
def test_right(label, name):
    assert judge(label, topic(name)) == "right"


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("hooter", "owl"),  # the same synset, but it is not the word's first sense
        ("bird of prey", "owl"),  # hypernym
        ("raptors", "owl"),
        ("barn owl", "owl"),  # hyponyms
        ("owlet", "owl"),
        ("a hawk", "owl"),  # siblings under bird of prey
        ("Eagle", "owl"),
        ("motor vehicle", "car"),
        ("ambulance", "car"),
        ("truck", "car"),
        ("wolf", "dog"),
        ("Athens", "Paris"),  # both instances of a national capital
        ("national capital", "Paris"),
        ("hawks", "Owls"),
    ],
)
def test_related(label, name):
    assert judge(label, topic(name)) == "related"


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("bird", "owl"),  # two steps up
        ("cat", "dog"),  # feline and canine
        ("oil", "owl"),
        ("owl, a bird that hunts at night", "owl"),
        ("owl, nocturnal bird of prey with hawk-like beak", "owl"),  # its own gloss
        ("barn", "owl"),
        ("a", "owl"),
        ("", "owl"),
        (" .", "owl"),
        ("nothing", "owl"),
        ("hawk", "zzyx"),
        ("Минерва", "owl"),
    ],
)
def test_wrong(label, name):
    assert judge(label, topic(name, f"{name}, {OWL.labels[1][5:]}")) == "wrong"


def test_given_labels_are_names_unless_they_are_glosses():
    given = Topic(("night bird", "owl, a bird", "Owl,  A bird"), name="owl")
    assert names_of(given)[:2] == ["owl", "night bird"]
    assert judge("Night birds", given) == "right"
    assert judge("owl, a bird", given) == "wrong"
    by_prompt = Topic(("moon", "moon, a satellite"), prompt="What shines at night?")
    assert judge("moon", by_prompt) == "right"
    assert judge("moon, a satellite", by_prompt) == "wrong"
    assert judge("sun", by_prompt) == "wrong"  # related is by the name, which it has not


def test_to_the_letter_only_case_and_whitespace_are_ignored():
    assert is_exact(" Bird of  minerva ", OWL)
    for label in ("owls", "an owl", "owl.", "bird-of-Minerva", "", OWL.labels[1]):
        assert not is_exact(label, OWL)


@pytest.mark.parametrize(
    ("label", "same"),
    [
        ("Oil", True),
        ("the oak", True),
        ("hooter", False),
        ("", False),
        ("'oily", True),
        ("?", False),
    ],
)
def test_the_first_letter(label, same):
    assert shares_first_letter(label, OWL) is same


def test_every_packaged_topic_is_a_noun_whose_name_and_synonyms_are_right():
    for one in packaged_topics()[::40]:
        assert judge(one.labels[1], one) == "wrong"  # the gloss
        for label in (one.name, *one.labels[2:]):
            assert is_exact(label, one)
            assert judge(label, one) == "right"


def test_what_is_right_for_a_held_out_topic_is_no_label_of_a_training_topic():
    """The split and the judgement agree: no right label was learned as another topic's."""
    trained: dict[str, str] = {}
    held_out = []
    for one in [*packaged_topics(), *more_topics()]:
        if one.split == "train":
            for label in (one.labels[0], *one.labels[2:]):
                trained[" ".join(label.lower().split())] = label
        else:
            held_out.append(one)
    assert len(held_out) == 1600
    seen = {
        (one.name, trained[name.lower()])
        for one in held_out
        for name in names_of(one)
        if name.lower() in trained
    }
    assert seen == set()


def test_a_random_noun_is_rarely_related_and_never_right():
    """The figure in docs/metrics.md: 0.2 %."""
    topics = packaged_topics()
    names = [str(one.name) for one in topics if one.split == "train"]
    rng = random.Random(0)
    found = Counter(
        judge(rng.choice(names), one)
        for one in topics
        if one.split == "test"
        for _ in range(10)  # 8,000 pairs
    )
    assert found["right"] == 0
    assert 0.001 < found["related"] / found.total() < 0.0025
