"""Which descriptions do not name their topic, and which labels repeat them."""

from __future__ import annotations

import json

import pytest

from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.inversion.descriptions import (
    glosses,
    names_it,
    repeated,
    written,
)
from selfie_adapters.sources.topics.topic import Topic

OWL = Topic(("owl", "owl, nocturnal bird of prey with hawk-like beak", "hooter"), name="owl")
TIN = Topic(("tin", "tin, a can made of tin"), name="tin")
BEE = Topic(("bee",), name="bee")


def test_a_gloss_that_names_its_topic_is_counted_and_not_read():
    found, named = glosses([OWL, TIN, BEE])
    assert [(one.topic, one.text) for one in found] == [
        (OWL, "nocturnal bird of prey with hawk-like beak")
    ]
    assert named == 1
    # a whole synonym of WordNet names it, in the plural too; a word of one does not
    assert names_it("what hooters, as some say, do", OWL)
    assert names_it("the bird of Minerva", OWL)
    assert not names_it("a bird that hunts at night", OWL)


@pytest.mark.parametrize(
    ("label", "some", "alone"),
    [
        ("owl", False, False),
        ("birds", True, True),  # in the singular
        ("bird of prey", True, True),
        ("a nocturnal hunter", True, False),
        ("the one with a beak.", True, True),
        ("with the of", False, False),  # no content word
        ("", False, False),
    ],
)
def test_content_words_alone_are_repeated(label, some, alone):
    assert repeated(label, "nocturnal bird of prey with hawk-like beak") == (some, alone)


def test_descriptions_of_a_taboo_run(tmp_path):
    rows = [
        {"condition": "description", "topic": "owl", "label": "A bird that hunts at night."},
        {"condition": "description", "topic": "tin", "label": "A soft ___ metal."},
        {"condition": "description", "topic": "unknown", "label": "Something."},
        {"condition": "nothing said", "topic": "owl", "label": "___"},
    ]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, named = written(tmp_path, [OWL, TIN])
    assert [(one.topic.title, one.text) for one in found] == [("owl", "A bird that hunts at night")]
    assert named == 1  # tin's name was taken out
    with pytest.raises(DataError, match="no description can be used"):
        written(tmp_path, [BEE])
