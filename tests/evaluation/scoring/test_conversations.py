import json

import pytest

from selfie_adapters.chat import Message
from selfie_adapters.errors import PromptError
from selfie_adapters.evaluation.scoring.conversations import chat_tokens, parse_conversation
from tiny import golden_tokenizer


@pytest.fixture
def published(golden_dir):
    return json.loads((golden_dir.parent / "scoring/scoring_expected.json").read_text())


def test_turns_are_those_of_the_published_parser(published):
    assert len(published["conversations"]) == 10
    for case in published["conversations"]:
        found = [message._asdict() for message in parse_conversation(case["text"])]
        assert found == case["messages"], case["text"]


@pytest.mark.parametrize("text", ["", "  \n\t", "[USER]", "[USER] [ASSISTANT]\n[USER]  "])
def test_nothing_said_is_no_turn(text):
    assert parse_conversation(text) == []


def decoded(tokenizer, tokens, wanted):
    pairs = zip(tokens.ids, tokens.content, strict=True)
    return tokenizer.decode([i for i, content in pairs if content == wanted])


def test_content_tokens_are_the_turns_and_nothing_else():
    tokenizer = golden_tokenizer()
    turns = [Message("user", "user: what is café?"), Message("assistant", "A place, é.")]
    tokens = chat_tokens(tokenizer, turns)
    assert decoded(tokenizer, tokens, True) == "user: what is café?A place, é."
    whole = tokenizer.apply_chat_template([t._asdict() for t in turns], tokenize=False)
    assert tokenizer.decode(list(tokens.ids)) == whole
    # the header's own word "user" is not content, the turn's is
    assert decoded(tokenizer, tokens, False).count("user") == 1


def test_special_tokens_in_a_turn_do_not_count():
    tokenizer = golden_tokenizer()
    tokens = chat_tokens(tokenizer, [Message("user", "a<|eot_id|>b")])
    assert decoded(tokenizer, tokens, True) == "ab"


def test_a_template_that_refuses_or_rewrites_turns_is_named():
    tokenizer = golden_tokenizer()
    with pytest.raises(PromptError, match="without turns"):
        chat_tokens(tokenizer, [])
    tokenizer.chat_template = "{{ raise_exception('the user speaks first') }}"
    with pytest.raises(PromptError, match="the user speaks first"):
        chat_tokens(tokenizer, [Message("assistant", "hello")])
    tokenizer.chat_template = "{% for m in messages %}{{ m.content * 2 }}{% endfor %}"
    with pytest.raises(PromptError, match="changes the text"):
        chat_tokens(tokenizer, [Message("user", "hello")])
    tokenizer.chat_template = None
    with pytest.raises(PromptError, match="chat template"):
        chat_tokens(tokenizer, [Message("user", "hello")])
