"""What the first letters of a title reveal, against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from letters import LettersEmbedder
from selfie_adapters.evaluation.retrieval.lookup import (
    Entry,
    Query,
    TopicIndex,
    find_places,
    summary_of,
)
from selfie_adapters.evaluation.retrieval.results import compare
from selfie_adapters.evaluation.retrieval.spelling import FirstLetters, first_letters, same_start

TITLES = ["Owl", "owner", "an oven", "tin", "Tick", "bee"]


@pytest.mark.parametrize(
    ("title", "letters"),
    [
        ("Owl", "ow"),
        ("an oven", "ov"),
        ("The Beatles", "be"),
        ("A", "a"),
        ('"tin" can', "ti"),
        ("", ""),
    ],
)
def test_letters_without_case_article_and_signs(title, letters):
    assert first_letters(title, 2) == letters


def test_titles_are_grouped_by_their_letters():
    groups = same_start(TITLES)
    assert groups[0] == groups[1]
    assert groups[3] == groups[4]
    assert len(set(groups.tolist())) == 4


def queries(*topics: int) -> list[Query]:
    return [Query(str(topic), topic, "") for topic in topics]


def test_the_oracle_guesses_among_the_topics_with_its_letters():
    one, two = FirstLetters(TITLES, queries(0, 3, 5), 1), FirstLetters(TITLES, queries(0, 3, 5), 2)
    # o: 3 topics, t: 2, b: 1; ow: 2, ti: 2, be: 1
    assert one.found_at(1) == pytest.approx([1 / 3, 1 / 2, 1])
    assert one.found_at(2) == pytest.approx([2 / 3, 1, 1])
    assert one.reciprocal() == pytest.approx([(1 + 1 / 2 + 1 / 3) / 3, (1 + 1 / 2) / 2, 1])
    assert one.ranks() == pytest.approx([2, 1.5, 1])
    assert two.found_at(1) == pytest.approx([1 / 2, 1 / 2, 1])
    assert (one.condition, two.condition) == ("oracle: first 1 letter", "oracle: first 2 letters")
    found = summary_of(one, 0)
    assert found["recall_at"]["1"]["mean"] == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)
    assert found["queries"] == 3


def test_ranks_among_topics_with_the_same_letters():
    index = np.eye(4, dtype=np.float32)
    query = np.array([[0.5, 0.6, 0.4, 0.48]], np.float32)
    found = find_places(query, index, np.array([0]), starts=np.array([7, 3, 7, 7]))
    assert found.rank.tolist() == [2]  # topic 1 is better
    assert found.start_rank.tolist() == [1]  # and does not begin with the same letters
    assert found.start_size.tolist() == [3]
    alone = find_places(query, index, np.array([0]))
    assert (alone.start_rank.tolist(), alone.start_size.tolist()) == ([1], [1])


def test_a_condition_states_how_it_does_among_them_and_is_compared_with_the_oracle():
    index = TopicIndex([Entry(title) for title in TITLES], "title", LettersEmbedder())
    asked = [Query("0", 0, "owner"), Query("3", 3, "tin"), Query("5", 5, "owl")]
    found = index.look_up("spells", "", asked)
    alike = found.summary(0)["same_start"]
    # bee has no other topic with its letters; "owner" finds owner and not owl, "tin" finds tin
    assert (alike["queries"], alike["topics"], alike["chance"]) == (2, 2.0, 0.5)
    assert alike["first"]["mean"] == 0.5
    pair = compare(found, index.first_letters(asked, 4), seed=0)
    assert pair["difference"]["recall_at_1"]["mean"] == pytest.approx(1 / 3 - 1)
    lone = TopicIndex([Entry("owl"), Entry("tin")], "title", LettersEmbedder())
    assert lone.look_up("x", "", queries(0, 1)).summary(0)["same_start"] is None
