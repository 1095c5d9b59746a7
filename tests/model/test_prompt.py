from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from selfie_adapters.errors import PromptError
from selfie_adapters.model import SoftPrompt
from selfie_adapters.model.tokens import token_id
from selfie_adapters.model.user_text import as_chat
from tiny import golden_tokenizer

LLAMA = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
    'What is the meaning of "<|reserved_special_token_0|>"?<|eot_id|>'
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
    'The meaning of "<|reserved_special_token_0|>" is "'
)


def tokenizer_with(*special: str, bos: str | None = None, eos: str | None = None):
    """A character-level tokenizer whose only whole words are the given special tokens."""
    letters = sorted(set("abcdefghijklmnopqrstuvwxyzTWQ \n\"?.<|>_'0123456789"))
    vocabulary = {token: i for i, token in enumerate([*letters, "[UNK]"])}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.bos_token, tokenizer.eos_token = bos, eos
    return tokenizer


def test_the_llama_prompt_is_the_published_one(golden):
    prompt = SoftPrompt.for_tokenizer(golden_tokenizer())
    assert prompt.template == LLAMA == golden["template"]
    assert prompt.placeholder == golden["reserved_token"]


def test_llama_sites_follow_from_the_text():
    tokenizer = golden_tokenizer()
    bound = SoftPrompt.for_tokenizer(tokenizer).bind(tokenizer)
    # byte-level: a special token is one id, any other character one id a byte
    before = 1 + 1 + len("user") + 1 + len('\n\nWhat is the meaning of "')
    between = len('"?') + 1 + 1 + len("assistant") + 1 + len('\n\nThe meaning of "')
    assert bound.sites == (before, before + 1 + between)
    assert [bound.ids[site] for site in bound.sites] == [bound.placeholder_id] * 2
    assert len(bound.prefix_ids) == before
    assert bound.prefix_ids + bound.suffix_ids == bound.ids
    assert tokenizer.decode([bound.end_id]) == "<|eot_id|>"


@pytest.mark.parametrize(
    ("special", "begins", "placeholder", "end"),
    [
        (
            ["<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<reponame>"],
            "<|im_start|>user\nWhat",
            "<|object_ref_start|>",
            "<|im_end|>",
        ),
        (
            ["<|im_start|>", "<|im_end|>", "<reponame>"],
            "<|im_start|>user\n",
            "<reponame>",
            "<|im_end|>",
        ),
        (
            ["<bos>", "<start_of_turn>", "<end_of_turn>", "<unused0>"],
            "<bos><start_of_turn>user\nWhat",
            "<unused0>",
            "<end_of_turn>",
        ),
    ],
)
def test_the_chat_format_is_known_by_its_special_tokens(special, begins, placeholder, end):
    tokenizer = tokenizer_with(*special, eos=end)
    prompt = SoftPrompt.for_tokenizer(tokenizer)
    assert prompt.template.startswith(begins)
    assert prompt.template.endswith(f'The meaning of "{placeholder}" is "')
    bound = prompt.bind(tokenizer)
    assert len(bound.sites) == 2
    assert tokenizer.convert_ids_to_tokens(bound.end_id) == end


def test_a_tokenizer_without_a_chat_format_gets_plain_text_and_has_no_bare_turn():
    tokenizer = tokenizer_with("<weird>", "<|end|>", eos="<|end|>")
    prompt = SoftPrompt.for_tokenizer(tokenizer)
    assert prompt.placeholder == "<weird>"
    assert prompt.template == ('What is the meaning of "<weird>"?\nThe meaning of "<weird>" is "')
    with pytest.raises(PromptError, match="no chat format known"):
        as_chat(tokenizer, "hello", "bare")


def test_a_tokenizer_without_any_free_token_is_told_what_to_pass():
    tokenizer = tokenizer_with("<|end|>", eos="<|end|>")
    with pytest.raises(PromptError, match=r"no token of this vocabulary can be .*--placeholder"):
        SoftPrompt.for_tokenizer(tokenizer)


def test_a_placeholder_of_several_tokens_is_refused_with_free_ones():
    with pytest.raises(PromptError, match=r'"xyz" is 3 tokens .*<\|reserved_special_token_0\|>'):
        SoftPrompt('<|begin_of_text|>what is "xyz"', "xyz").bind(golden_tokenizer())


def test_a_template_without_its_placeholder_is_refused():
    with pytest.raises(PromptError, match="is 0 times in the template and 0 times"):
        SoftPrompt("<|begin_of_text|>what", "<|reserved_special_token_0|>").bind(golden_tokenizer())


@pytest.mark.parametrize(("begin", "count"), [("", 0), ("<|begin_of_text|>" * 2, 2)])
def test_exactly_one_begin_token_is_demanded_where_chats_have_one(begin, count):
    template = begin + 'what is "<|reserved_special_token_0|>"'
    with pytest.raises(PromptError, match=f"contains {count} .* requires exactly one"):
        SoftPrompt(template, "<|reserved_special_token_0|>").bind(golden_tokenizer())


def test_a_begin_token_inside_the_template_is_refused():
    template = '<|begin_of_text|>a<|begin_of_text|>"<|reserved_special_token_0|>"'
    with pytest.raises(PromptError, match="contains 2 .*exactly one"):
        SoftPrompt(template, "<|reserved_special_token_0|>").bind(golden_tokenizer())


def test_a_model_whose_texts_have_no_begin_token_needs_none():
    tokenizer = tokenizer_with("<|endoftext|>", "<slot>", bos="<|endoftext|>", eos="<|endoftext|>")
    bound = SoftPrompt('what is "<slot>"', "<slot>").bind(tokenizer)
    assert bound.sites == (len('what is "'),)


def test_a_turn_marker_that_is_also_the_begin_token_may_come_again():
    tokenizer = tokenizer_with(
        "<|im_start|>", "<|im_end|>", "<reponame>", bos="<|im_start|>", eos="<|im_end|>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert len(SoftPrompt.for_tokenizer(tokenizer).bind(tokenizer).sites) == 2


def test_looking_a_token_up_does_not_build_the_vocabulary(monkeypatch):
    # a topic needs it once, and a vocabulary of 49,152 takes 20 ms to build
    tokenizer = golden_tokenizer()
    monkeypatch.setattr(type(tokenizer), "get_vocab", None)
    assert token_id(tokenizer, "<|eot_id|>") == 259
    assert token_id(tokenizer, "<|nothing_like_it|>") is None
    assert as_chat(tokenizer, "hi", "bare").startswith("<|begin_of_text|>")
