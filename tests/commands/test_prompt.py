from __future__ import annotations

import json

import pytest

from selfie_adapters.commands.prompt import show
from selfie_adapters.errors import PromptError


def test_the_published_prompt_token_by_token(golden_dir, golden, capsys):
    show(model=str(golden_dir / "model"), json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["template"] == golden["template"]
    assert facts["placeholder"] == golden["reserved_token"]
    assert "".join(facts["tokens"]) == golden["template"]
    # the golden tokenizer gives every byte and every special token an id
    text = golden["template"]
    for special in ("begin_of_text", "start_header_id", "end_header_id", "eot_id"):
        text = text.replace(f"<|{special}|>", "\x00")
    text = text.replace(golden["reserved_token"], "\x01")
    assert facts["sites"] == [i for i, c in enumerate(text) if c == "\x01"]
    assert len(facts["ids"]) == len(text)
    assert facts["shared_prefix_tokens"] == facts["sites"][0]


def test_sites_are_marked_in_the_table(golden_dir, capsys):
    show(model=str(golden_dir / "model"))
    lines = capsys.readouterr().out.splitlines()
    marked = [line for line in lines if "◀ soft token" in line]
    assert len(marked) == 2
    assert all("reserved_special_token_0" in line for line in marked)
    last = " ".join(" ".join(lines[-2:]).split())
    assert "Then comes the label, its closing quote, and <|eot_id|>." in last


def test_a_template_of_ones_own(golden_dir, golden, capsys):
    template = f'<|begin_of_text|>"{golden["reserved_token"]}" [bold]is[/] "'
    show(model=str(golden_dir / "model"), template=template, json=True)
    facts = json.loads(capsys.readouterr().out)
    assert (facts["template"], facts["sites"]) == (template, [2])
    show(model=str(golden_dir / "model"), template=template)
    shown = capsys.readouterr().out.splitlines()
    letters = [line.split()[-1] for line in shown[: len(facts["ids"])] if line[14:].strip()]
    assert "[bold]" in "".join(letters)  # nothing is taken for markup


@pytest.mark.parametrize(
    ("template", "placeholder", "message"),
    [
        ("no site at all", None, "is 0 times"),
        ('<|begin_of_text|>"ab" is "', "ab", "one is needed"),
    ],
)
def test_prompts_that_cannot_work(template, placeholder, message, golden_dir):
    with pytest.raises(PromptError, match=message):
        show(model=str(golden_dir / "model"), template=template, placeholder=placeholder)


def test_the_choice_is_explained(golden_dir, capsys):
    show(model=str(golden_dir / "model"))
    shown = " ".join(capsys.readouterr().out.split())
    assert "text: the built-in Llama 3 format" in shown
    assert "placeholder: <|reserved_special_token_0|>, a free special token" in shown
    assert "begin tokens in front: 1 (<|begin_of_text|>)" in shown
    show(model=str(golden_dir / "model"), placeholder="~", json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["placeholder"] == "~"
    assert facts["placeholder_origin"] == "given by the user"
    assert facts["begin_tokens"] == 1
