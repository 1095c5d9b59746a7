"""Labels as token ids: what stands in an answer behind the opening quote."""

from __future__ import annotations

import pytest
from tokenizers import pre_tokenizers

from chat_families import FAMILIES, tokenizer_of
from selfie_adapters.inference.label_batches import tokenize_labels


def family(name):
    return tokenizer_of(next(one for one in FAMILIES if one.name == name))


def pieces(tokenizer, label):
    tokens = tokenize_labels(tokenizer, [label], tokenizer.eos_token_id)
    return tokenizer.convert_ids_to_tokens(tokens.ids.tolist())


def with_prefix_space():
    tokenizer = family("GPT-2")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


@pytest.mark.parametrize("name", ["Llama 2", "Mistral 7B v0.1"])
def test_a_label_has_no_space_that_an_answer_would_not_have(name):
    tokenizer = family(name)
    assert pieces(tokenizer, "owl") == ["o", "w", "l", '"', "</s>"]
    assert pieces(tokenizer, "an owl") == ["a", "n", "▁o", "w", "l", '"', "</s>"]
    # the same tokens as in the whole answer
    whole = tokenizer.encode('The meaning of "x" is "an owl"', add_special_tokens=False)
    label = tokenize_labels(tokenizer, ["an owl"], tokenizer.eos_token_id).ids.tolist()[:-1]
    assert whole[-len(label) :] == label


def test_a_prefix_space_of_a_byte_level_tokenizer_is_no_part_of_the_label():
    assert pieces(with_prefix_space(), "owl") == ["o", "w", "l", '"', "<|endoftext|>"]


def test_other_tokenizers_keep_the_published_rule():
    # label and closing quote are one text
    tokenizer = family("GPT-2")
    text = tokenizer.encode('the owl"', add_special_tokens=False)
    assert tokenize_labels(tokenizer, ["the owl"], 0).ids.tolist() == [*text, 0]
    assert pieces(tokenizer, "<|endoftext|>")[0] == "<"
