"""Texts as the model sees them: one begin token, no text that is a rendered chat already."""

from __future__ import annotations

import pytest
from tokenizers.processors import TemplateProcessing

from selfie_adapters.chat import ChatRequest, Message
from selfie_adapters.chat.in_process import InProcessChat
from selfie_adapters.errors import DataError, PromptError
from selfie_adapters.evaluation.bridge.reading import plan_question
from selfie_adapters.evaluation.scoring.conversations import chat_tokens
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.tokens import begun_ids, encode
from selfie_adapters.model.user_text import UserText, usual_chat
from selfie_adapters.reading.plan import plan_reading, prompt_ids
from selfie_adapters.sources import Topic, topic_vectors
from selfie_adapters.sources.topics import reading as topics_module
from selfie_adapters.sources.topics.reading import topic_texts
from selfie_adapters.sources.twohop import Entity, TwoHopQuestion
from tiny import golden_tokenizer, tiny_network

BEGIN = 256
TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


def letters(text):
    """The golden tokenizer knows bytes and five special tokens, and adds nothing."""
    return encode(golden_tokenizer(), text)


@pytest.fixture
def tokenizer():
    """A begin token before plain texts, and a chat template that leaves it to the tokenizer."""
    tokenizer = golden_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", BEGIN)]
    )
    tokenizer.chat_template = TURNS
    return tokenizer


@pytest.fixture
def model(tokenizer):
    return FrozenModel(tiny_network("llama"), tokenizer, "tiny")


@pytest.mark.parametrize("chat", ["template", "none"])
def test_topics_and_reading_give_the_model_the_same_ids(model, monkeypatch, chat):
    seen = []

    def spied(tokenizer, texts):
        seen.extend(begun_ids(tokenizer, texts))
        return begun_ids(tokenizer, texts)

    monkeypatch.setattr(topics_module, "begun_ids", spied)
    texts = topic_texts(model, [Topic(("owl",), name="owl")], "Tell me about {}.", chat)
    topic_vectors(model, texts, [0])
    user = "Tell me about owl."
    text = user if chat == "none" else f"[user]{user}"
    assert seen == [[BEGIN, *letters(text)]]
    assert prompt_ids(model.tokenizer, user, chat) == seen[0]


def test_every_other_path_has_one_begin_token_too(model):
    owl = Entity("owl", ("owl",))
    question = TwoHopQuestion("1", "kind", "a bee", owl, owl, "", "an owl")
    plan = plan_question(model, question, [0], "template").plan
    asked = InProcessChat(model)._prompt(0, ChatRequest((Message("user", "hi"),), max_tokens=1))
    said = chat_tokens(model.tokenizer, [Message("user", "hi"), Message("assistant", "yes")])
    assert not said.content[0]
    assert len(said.ids) == len(said.content)
    for ids in ([token.id for token in plan.tokens], asked, said.ids):
        assert ids[0] == BEGIN
        assert list(ids).count(BEGIN) == 1


def test_a_doubled_begin_token_is_refused(tokenizer):
    with pytest.raises(PromptError, match='begins with 2 "<|begin_of_text|>" tokens'):
        prompt_ids(tokenizer, "<|begin_of_text|><|begin_of_text|>owl", "none")
    once = prompt_ids(tokenizer, "<|begin_of_text|>owl", "none")
    assert once == [BEGIN, *letters("owl")]


def test_a_rendered_chat_is_not_put_into_another_turn(model):
    with pytest.raises(PromptError, match=r"contains the begin token .*--chat none"):
        prompt_ids(model.tokenizer, "<|begin_of_text|>[user]owl", "template")
    topics = [Topic(("owl",), name="owl"), Topic(("bee",), prompt="<|begin_of_text|>bee")]
    with pytest.raises(DataError, match=r'topic 1 \(".*"\): .*contains the begin token'):
        topic_texts(model, topics, "{}", "template")


def test_a_chat_format_that_is_none_is_refused_with_the_nearest(model):
    with pytest.raises(PromptError, match=r"chat='templat': unknown. Did you mean \"template\"\?"):
        plan_reading(model, "owls", chat="templat")


def test_the_chat_format_is_the_first_that_is_stated():
    tokenizer = golden_tokenizer()
    assert usual_chat(tokenizer, None, "bare", "none") == "bare"
    assert usual_chat(tokenizer, None, None) == "template"
    tokenizer.chat_template = None
    assert usual_chat(tokenizer) == "none"


def test_a_text_without_begin_token_stays_without(model):
    tokenizer = golden_tokenizer()
    assert UserText(tokenizer, "none").ids("owl") == letters("owl")
