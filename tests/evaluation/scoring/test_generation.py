from __future__ import annotations

import json

import pytest
import torch

from selfie_adapters.errors import LabellingError
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.evaluation.scoring import generation as generation_scoring
from selfie_adapters.evaluation.scoring.conversations import Writing
from selfie_adapters.evaluation.scoring.generation import Scoring, others_of, score_labels
from selfie_adapters.evaluation.scoring.label_groups import GivenLabels

LATENTS = [3, 9, 17, 25]


class Writer:
    """Writes what it is given for a theme; after `last` calls the process "dies"."""

    name = "written"
    weights: str | None = None

    def __init__(self, texts=None, last=None):
        self.texts = texts or {}
        self.calls = 0
        self.last = last

    def answer(self, requests, done=lambda _number, _text: None):
        self.calls += 1
        if self.last is not None and self.calls > self.last:
            raise KeyboardInterrupt
        return [self.text(request) for request in requests]

    def text(self, request):
        theme = request.messages[0].content.rsplit("Theme: ", 1)[1]
        number = request.seed % 97
        return self.texts.get(theme, f" about {theme}\n[ASSISTANT] yes {number}")


def scoring(parts, writer, **changes):
    model, _, encoder = parts
    options = {"writing": Writing(conversations=2), "latents_at_once": 2} | changes
    return Scoring(model, encoder, writer, others=others_of(len(LATENTS), seed=0), **options)


LABELS = GivenLabels([["owls", "birds"], ["tea"], ["kings"], ["owls"]], count=2)


def folder(path):
    return EvaluationFolder(path, "generation scoring", {})


def test_rows_hold_maxima_at_the_latent_and_then_at_the_other_one(parts, tmp_path):
    model, sae, _ = parts
    rows = folder(tmp_path)
    score_labels(scoring(parts, Writer()), {"training": LABELS}, rows)
    assert list(rows.rows) == [f"training:{latent}" for latent in LATENTS]
    others = others_of(4, seed=0)
    checked = 0
    for place, latent in enumerate(LATENTS):
        row = rows.rows[f"training:{latent}"]
        columns = [latent, LATENTS[others[place]]]
        for label in row["labels"]:
            for conversation in label["conversations"]:
                user, assistant = conversation["text"].removeprefix("[USER]").split("\n[ASSISTANT]")
                turns = [
                    {"role": "user", "content": user.strip()},
                    {"role": "assistant", "content": assistant.strip()},
                ]
                whole = model.tokenizer.apply_chat_template(turns, tokenize=False)
                ids = model.tokenizer.encode(whole, add_special_tokens=False)
                assert conversation["tokens"] == len(ids)
                with torch.no_grad():
                    out = model.network(torch.tensor([ids]), output_hidden_states=True)
                    wanted = sae.encode(out.hidden_states[2])[0, 1:, columns].amax(dim=0)
                torch.testing.assert_close(
                    torch.tensor(conversation["anywhere"]), wanted, rtol=1e-3, atol=1e-4
                )
                checked += 1
    assert checked == 4 * 2 * 2
    # one label for two groups: other conversations in the second
    tea = rows.rows["training:9"]["labels"]
    assert len({c["text"] for label in tea for c in label["conversations"]}) == 4


def test_every_latent_is_the_other_one_of_one_latent():
    others = others_of(5, seed=4)
    assert sorted(others) == [0, 1, 2, 3, 4]
    assert all(other != place for place, other in enumerate(others))
    assert others_of(1, seed=0) == ()


def test_after_a_kill_the_rows_are_the_same(parts, tmp_path):
    whole = folder(tmp_path / "whole")
    sources = {"training": LABELS, "other": GivenLabels([["x"]] * 4, count=1)}
    score_labels(scoring(parts, Writer()), sources, whole)
    for dies_after in range(4):
        path = tmp_path / f"killed{dies_after}"
        with pytest.raises(KeyboardInterrupt):
            score_labels(scoring(parts, Writer(last=dies_after)), sources, folder(path))
        begun = folder(path)
        assert len(begun.rows) == 2 * dies_after
        again = Writer()
        score_labels(scoring(parts, again), sources, begun)
        assert again.calls == 4 - dies_after
        written = [(path / "rows.jsonl").read_bytes(), (tmp_path / "whole/rows.jsonl").read_bytes()]
        assert written[0] == written[1]


def test_killed_within_a_unit_only_the_missing_rows_are_added(parts, tmp_path, monkeypatch):
    whole, half = folder(tmp_path / "whole"), folder(tmp_path / "half")
    score_labels(scoring(parts, Writer()), {"training": LABELS}, whole)
    half.add("training:3", whole.rows["training:3"])
    score_labels(scoring(parts, Writer()), {"training": LABELS}, half)
    assert half.rows == whole.rows
    # all there: nothing is measured at all
    monkeypatch.setattr(generation_scoring, "_measure", None)
    score_labels(scoring(parts, Writer()), {"training": LABELS}, half)


def test_empty_labels_and_empty_conversations(parts, tmp_path):
    rows = folder(tmp_path)
    labels = GivenLabels([["owls", ""], ["mute", "owls"], ["a"], ["b"]], count=2)
    score_labels(scoring(parts, Writer({"mute": " \n"})), {"training": labels}, rows)
    (full, empty), (mute, _) = (rows.rows[f"training:{i}"]["labels"] for i in (3, 9))
    assert len(full["conversations"]) == 2
    assert empty["conversations"] == []
    assert [c["error"] for c in mute["conversations"]] == ["the writer wrote nothing"] * 2


def test_markers_left_out_make_a_user_turn(parts, tmp_path):
    rows = folder(tmp_path)
    score_labels(scoring(parts, Writer({"owls": "no markers"})), {"training": LABELS}, rows)
    conversation = rows.rows["training:3"]["labels"][0]["conversations"][0]
    assert conversation["content_tokens"] == len("no markers")  # bytes of the one turn


@pytest.mark.parametrize("nothing", ["", "  \n", "[USER] [ASSISTANT]"])
def test_a_writer_that_writes_nothing_is_named(parts, tmp_path, nothing):
    writer = Writer(dict.fromkeys(["owls", "birds", "tea", "kings"], nothing))
    with pytest.raises(LabellingError, match=r"the writer written wrote none of 8 conversations"):
        score_labels(scoring(parts, writer), {"training": LABELS}, folder(tmp_path))


def test_labels_alone(parts, tmp_path):
    rows = folder(tmp_path)
    score_labels(scoring(parts, None), {"training": LABELS}, rows)
    assert rows.rows["training:3"] == {
        "latent": 3,
        "labels": [{"text": "owls", "scale": None}, {"text": "birds", "scale": None}],
    }
    json.dumps(dict(rows.rows))
