"""The style is the mean difference of the same prompts in both forms, at the asked token."""

from __future__ import annotations

import pytest
import torch

import selfie_adapters.evaluation.sensitivity.style as module
from selfie_adapters.dataset.captured import Captured
from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.sensitivity.style import chat_form, style_direction
from selfie_adapters.model.user_text import as_chat
from selfie_adapters.sources.topics.frames import read_frames
from selfie_adapters.sources.topics.topic import Topic

TOPICS = [Topic((name,), name=name) for name in ("owl", "bee")]
BARE = Captured(chat="bare", question="What is {}?")


def state(model, text, from_end):
    """The state after block 1 at the token that is `from_end` tokens before the last."""
    ids = model.tokenizer(text)["input_ids"]  # plain text has no begin token here
    with torch.no_grad():
        out = model.network(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    return out.hidden_states[2][0, -1 - from_end].double()


def unit(vector):
    return vector / vector.norm()


def test_at_names_sentences_and_concepts_cancel(model, monkeypatch):
    monkeypatch.setattr(module, "SENTENCES", 2)
    differences = []
    for frame in read_frames().train[:2]:
        after = len(frame.partition("{}")[2].encode())  # a byte is a token of this tokenizer
        for topic in TOPICS:
            plain = frame.replace("{}", topic.title)
            chat = as_chat(model.tokenizer, plain, "bare")
            rest = chat.rpartition(plain)[2]
            more = len(model.tokenizer(rest, add_special_tokens=False)["input_ids"])
            differences.append(state(model, chat, after + more) - state(model, plain, after))
    found = style_direction(model, TOPICS, 1, "name", BARE)
    torch.testing.assert_close(
        found, unit(torch.stack(differences).mean(dim=0)), atol=1e-5, rtol=1e-4
    )


def test_at_a_position_the_question_is_asked_in_both_forms(model):
    differences = []
    for topic in TOPICS:
        plain = f"What is {topic.title}?"
        chat = as_chat(model.tokenizer, plain, "bare")
        differences.append(state(model, chat, 0) - state(model, plain, 0))
    found = style_direction(model, TOPICS, 1, "-1", BARE)
    torch.testing.assert_close(
        found, unit(torch.stack(differences).mean(dim=0)), atol=1e-5, rtol=1e-4
    )


def test_the_form_is_the_vectors_own_else_the_template(model, monkeypatch):
    assert chat_form(model, BARE) == "bare"
    assert chat_form(model, Captured(chat="none")) == "template"
    monkeypatch.setattr(model.tokenizer, "chat_template", None)
    assert chat_form(model, BARE) == "bare"
    assert chat_form(model, Captured(chat="none")) is None
    with pytest.raises(DataError, match="the same states at block 1, position name"):
        style_direction(model, TOPICS, 1, "name", Captured())
