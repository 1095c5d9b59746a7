"""The built-in prompt of every family: text, begin token, placeholder, positions, end token."""

from __future__ import annotations

import re

import pytest

from chat_families import FAMILIES, tokenizer_of
from selfie_adapters.model import SoftPrompt
from selfie_adapters.model.prompt import choose_prompt
from selfie_adapters.model.user_text import UserText, as_chat

EACH = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
WITH_CHAT = pytest.mark.parametrize(
    "family", [f for f in FAMILIES if f.template], ids=lambda family: family.name
)


@EACH
def test_the_prompt_of_a_family(family):
    tokenizer = tokenizer_of(family)
    prompt = SoftPrompt.for_tokenizer(tokenizer)
    x = family.placeholder
    assert prompt.placeholder == x
    assert prompt.template == (
        f'{family.before}What is the meaning of "{x}"?{family.between}{family.gap}'
        f'The meaning of "{x}" is "'
    )
    bound = prompt.bind(tokenizer)
    assert len(bound.sites) == 2
    assert [bound.ids[site] for site in bound.sites] == [bound.placeholder_id] * 2
    assert tokenizer.decode([bound.placeholder_id]).strip() == x
    assert tokenizer.convert_ids_to_tokens(bound.end_id) == family.end
    named = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert bound.placeholder_id not in {*named, bound.end_id}
    assert tokenizer.unk_token_id is None or tokenizer.unk_token_id not in bound.ids


@EACH
def test_the_prompt_has_one_begin_token_where_the_model_has_one(family):
    tokenizer = tokenizer_of(family)
    ids = list(SoftPrompt.for_tokenizer(tokenizer).bind(tokenizer).ids)
    own = tokenizer("a")["input_ids"]
    if family.template:
        chat = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
        own = tokenizer(chat, add_special_tokens=False)["input_ids"]
    begin = tokenizer.bos_token_id
    expected = family.begins or own[0] == begin
    assert (begin is not None and ids[0] == begin) == expected
    assert not expected or ids[1] != begin


@WITH_CHAT
@pytest.mark.parametrize("chat", ["template", "bare", "none"])
def test_a_users_text_has_one_begin_token_in_every_chat_format(family, chat):
    tokenizer = tokenizer_of(family)
    ids = UserText(tokenizer, chat).ids("Tell me about owls.")
    begin = tokenizer.bos_token_id
    if begin is None:
        return
    template_begins = str(family.template).startswith("{{ bos_token") or family.name == "SmolLM2"
    expected = family.begins or (chat != "none" and (template_begins or family.name == "Llama 2"))
    assert ids[0] == begin if expected else ids[0] != begin
    assert ids[:2].count(begin) == int(expected)


@WITH_CHAT
def test_a_bare_turn_ends_where_the_answer_begins(family):
    assert as_chat(tokenizer_of(family), "hi", "bare") == f"{family.before}hi{family.between}"


@WITH_CHAT
def test_no_prompt_depends_on_the_day(family):
    tokenizer = tokenizer_of(family)
    text = UserText(tokenizer, "template").text("hi")
    if "strftime_now" in str(family.template):
        assert re.search(r"26 Jul 2024|26 July 2024|July 26, 2024|2024-07-26", text)


@EACH
def test_the_choice_is_explained(family):
    choice = choose_prompt(tokenizer_of(family))
    built_in = family.name in {"Llama 3.2", "SmolLM2", "Qwen 2.5", "Qwen 3", "Gemma 2"}
    assert ("built-in" in choice.template_origin) == built_in
    assert ("plain text" in choice.template_origin) == (family.template is None)
    assert ("rare character" in choice.placeholder_origin) == (family.placeholder == "※")
