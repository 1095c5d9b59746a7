from __future__ import annotations

import pytest
import torch

from selfie_adapters.errors import DataError, LabellingError
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.evaluation.scoring import negatives
from selfie_adapters.evaluation.scoring.conversations import Writing
from selfie_adapters.evaluation.scoring.generation import Scoring, ScoringRow
from selfie_adapters.evaluation.scoring.negatives import (
    choose_nouns,
    negative_conversations,
    write_negatives,
)
from selfie_adapters.sources.topics.reading import packaged_topics
from tiny import D_MODEL

LATENTS = [3, 9, 17, 25]
NOUNS = ["owl", "tea", "king", "rain", "glue"]


class Writer:
    """Writes about the theme it is asked for; after `last` calls the process "dies"."""

    name = "written"
    weights: str | None = None

    def __init__(self, nothing=(), last=None):
        self.themes, self.nothing, self.last, self.calls = [], nothing, last, 0

    def answer(self, requests, done=lambda _number, _text: None):
        self.calls += 1
        if self.last is not None and self.calls > self.last:
            raise KeyboardInterrupt
        asked = [one.messages[0].content.rsplit("Theme: ", 1)[1] for one in requests]
        self.themes += asked
        pairs = zip(asked, requests, strict=True)
        return [
            "" if theme in self.nothing else f" on {theme}\n[ASSISTANT] yes {one.seed % 97}"
            for theme, one in pairs
        ]


def scoring(parts, writer):
    model, _, encoder = parts
    return Scoring(model, encoder, writer, Writing(conversations=7))


def folder(path):
    return EvaluationFolder(path, "generation scoring", {}, kind=ScoringRow)


def test_nouns_are_concepts_that_share_no_word_with_a_label():
    """Every fourth concept is a label, in capitals: neither it nor its synonyms may be chosen."""
    topics = packaged_topics()
    labels = [f"a {topic.title.upper()}, or so" for topic in topics[::4]]
    chosen = choose_nouns(labels, 500, seed=3)
    by_title = {topic.title: topic for topic in topics}
    assert len(set(chosen)) == 500
    assert set(chosen) <= set(by_title)
    text = f" {' '.join(' '.join(labels).replace(',', ' ').split()).casefold()} "
    assert not [noun for noun in chosen if f" {noun.casefold()} " in text]
    for noun in chosen:
        own = {one.casefold() for one in by_title[noun].labels if "," not in one}
        assert not [one for one in own if f" {one} " in text]


def test_nouns_depend_on_the_seed_and_fewer_are_the_first_of_more():
    assert choose_nouns([], 20, seed=1) == choose_nouns([], 20, seed=1)
    assert choose_nouns([], 20, seed=1) != choose_nouns([], 20, seed=2)
    assert choose_nouns([], 5, seed=1) == choose_nouns([], 20, seed=1)[:5]


def test_too_few_nouns_are_an_error_with_their_number():
    labels = [topic.title for topic in packaged_topics()[:-1]]
    with pytest.raises(DataError, match=r"negatives: 10 nouns .* the concept list has [01]\. "):
        choose_nouns(labels, 10, seed=0)


def test_each_negative_is_measured_at_every_latent(parts, tmp_path):
    model, sae, _ = parts
    rows, writer = folder(tmp_path), Writer()
    write_negatives(scoring(parts, writer), NOUNS, rows)
    assert writer.themes == NOUNS  # one conversation each, whatever a label gets
    assert [row["noun"] for row in rows.rows.values()] == NOUNS
    for one in negative_conversations(rows, len(NOUNS)):
        user, assistant = one["text"].removeprefix("[USER]").split("\n[ASSISTANT]")
        turns = [
            {"role": "user", "content": user.strip()},
            {"role": "assistant", "content": assistant.strip()},
        ]
        whole = model.tokenizer.apply_chat_template(turns, tokenize=False)
        ids = model.tokenizer.encode(whole, add_special_tokens=False)
        with torch.no_grad():
            out = model.network(torch.tensor([ids]), output_hidden_states=True)
            expected = sae.encode(out.hidden_states[2])[0, 1:, LATENTS].amax(dim=0)
        found = torch.tensor(one["anywhere"])
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        assert len(one["content"]) == len(LATENTS)


def test_a_batch_that_is_split_to_save_memory_gives_the_same(parts, tmp_path, monkeypatch):
    write_negatives(scoring(parts, Writer()), NOUNS, whole := folder(tmp_path / "whole"))
    monkeypatch.setattr(negatives, "_NUMBERS_AT_ONCE", 2 * len(LATENTS) * D_MODEL)
    write_negatives(scoring(parts, Writer()), NOUNS, split := folder(tmp_path / "split"))
    for key, row in whole.rows.items():
        found, expected = split.rows[key]["conversation"], row["conversation"]
        assert found["text"] == expected["text"]
        assert found["content"] == pytest.approx(expected["content"], rel=1e-4, abs=1e-5)


def test_after_a_kill_the_set_is_the_same(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(negatives, "_AT_ONCE", 2)
    write_negatives(scoring(parts, Writer()), NOUNS, folder(tmp_path / "whole"))
    for calls in range(3):
        path = tmp_path / f"killed{calls}"
        with pytest.raises(KeyboardInterrupt):
            write_negatives(scoring(parts, Writer(last=calls)), NOUNS, folder(path))
        again = Writer()
        write_negatives(scoring(parts, again), NOUNS, folder(path))
        assert again.themes == NOUNS[2 * calls :]  # what is there is not written again
        expected = (tmp_path / "whole/rows.jsonl").read_bytes()
        assert (path / "rows.jsonl").read_bytes() == expected


def test_one_without_text_is_kept_as_an_error_and_none_with_text_is_refused(parts, tmp_path):
    rows = folder(tmp_path / "one")
    write_negatives(scoring(parts, Writer(nothing={"tea"})), NOUNS, rows)
    errors = [one.get("error") for one in negative_conversations(rows, len(NOUNS))]
    assert errors == [None, "the writer wrote nothing", None, None, None]
    with pytest.raises(LabellingError, match="wrote none of 5 conversations"):
        write_negatives(scoring(parts, Writer(nothing=NOUNS)), NOUNS, folder(tmp_path / "all"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"noun": "tea", "conversation": {"text": "", "error": "x"}}, "is about 'tea', not 'owl'"),
        ({"latent": 3, "labels": []}, "is about None, not 'owl'"),
        (
            {"noun": "owl", "conversation": {"text": "a", "content": [1.0], "anywhere": [1.0]}},
            "does not have 4 activations",
        ),
    ],
)
def test_a_row_with_a_repeated_key_is_damaged(parts, tmp_path, row, message):
    rows = folder(tmp_path)
    rows.add("negative:0", row)
    with pytest.raises(DataError, match=message):
        write_negatives(scoring(parts, Writer()), NOUNS, rows)


@pytest.mark.parametrize("row", [{}, {"latent": 3}, {"noun": "owl"}, {"latent": 3, "noun": "owl"}])
def test_keys_of_rows_are_latents_or_nouns(tmp_path, row):
    folder(tmp_path).add("negative:0", row)
    with pytest.raises(DataError, match=r"rows.jsonl, line 1.*latent with labels is expected"):
        folder(tmp_path)
