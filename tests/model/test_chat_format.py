"""Chat templates that are unlike the usual ones."""

from __future__ import annotations

import pytest

from selfie_adapters.errors import PromptError
from selfie_adapters.model import SoftPrompt
from selfie_adapters.model.chat_format import chat_format, end_of_turn
from selfie_adapters.model.user_text import UserText
from tiny import golden_tokenizer

X = "<|reserved_special_token_0|>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM_NEEDED = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('a system turn is needed') }}"
    "{% endif %}"
)


def tokenizer_with(template, *special):
    tokenizer = golden_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = template
    return tokenizer


def test_llamas_tokens_do_not_make_a_llama_prompt_where_the_template_is_chatml():
    tokenizer = tokenizer_with(CHATML, "<|im_start|>", "<|im_end|>")
    tokenizer.bos_token = None
    prompt = SoftPrompt.for_tokenizer(tokenizer)
    assert prompt.template.startswith("<|im_start|>user\nWhat is")
    assert prompt.placeholder == X
    assert tokenizer.decode([prompt.bind(tokenizer).end_id]) == "<|im_end|>"


def test_without_a_chat_template_the_special_tokens_decide():
    tokenizer = tokenizer_with(None)
    assert SoftPrompt.for_tokenizer(tokenizer).template.startswith(
        "<|begin_of_text|><|start_header_id|>user"
    )


def test_a_system_turn_that_is_required_is_written():
    tokenizer = tokenizer_with(SYSTEM_NEEDED + CHATML, "<|im_start|>", "<|im_end|>")
    found = chat_format(tokenizer)
    assert found is not None
    assert found.before == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    )
    assert "requires" in found.origin


def test_content_in_parts_is_tried_where_text_is_not_taken():
    template = (
        "{% for m in messages %}[{{ m.role }}]{% for part in m.content %}{{ part.text }}"
        "{% endfor %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    found = chat_format(tokenizer_with(template))
    assert found is not None
    assert (found.before, found.between) == ("[user]", "[assistant]")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('never today') }}", "refuses these turns .*never today.*--template"),
        ("{{ 1 / 0 }}", "refuses these turns .*zero"),
        ("{{ messages[0].content.upper() }}", "drops or changes the user's text.*--placeholder"),
        ("[user][/user]", "drops or changes the user's text"),
        ("{{ messages[0].content * 2 }}", "drops or changes the user's text"),
    ],
)
def test_a_template_that_takes_no_user_turn_is_named_with_what_to_pass(template, message):
    tokenizer = tokenizer_with(template)
    with pytest.raises(PromptError, match=message):
        SoftPrompt.for_tokenizer(tokenizer)
    with pytest.raises(PromptError, match=message):
        UserText(tokenizer, "bare")
    own = SoftPrompt(f'<|begin_of_text|>"{X}" is "', X)
    assert own.bind(tokenizer).sites == (2,)
    assert end_of_turn(tokenizer) == "<|eot_id|>"


def test_a_placeholder_that_ends_the_answer_is_refused():
    with pytest.raises(PromptError, match="is the token that ends an answer"):
        SoftPrompt('<|begin_of_text|>"<|eot_id|>" is "', "<|eot_id|>").bind(golden_tokenizer())


def test_a_tokenizer_that_adds_an_end_token_to_every_text_is_refused(monkeypatch):
    tokenizer = golden_tokenizer()
    own = type(tokenizer).encode

    def encode(self, text, **options):
        return [*own(self, text, **options), self.eos_token_id]

    monkeypatch.setattr(type(tokenizer), "encode", encode)
    with pytest.raises(PromptError, match=r'puts "<\|eot_id\|>" after every text'):
        SoftPrompt(f'<|begin_of_text|>"{X}" is "', X, end="<|eot_id|>").bind(tokenizer)
