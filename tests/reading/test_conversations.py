"""Conversations and answers: the tokens that are read are those that the model saw or wrote."""

from __future__ import annotations

import json

import pytest
import torch

from selfie_adapters.chat.request import Message
from selfie_adapters.commands.read import read
from selfie_adapters.errors import ConfigError, PromptError
from selfie_adapters.reading.answering import answer_ids
from selfie_adapters.reading.plan import plan_reading, prompt_ids
from selfie_adapters.reading.read import read_states

ASKED = (Message("user", "an owl?"), Message("assistant", "yes"), Message("user", "why"))


def test_a_conversation_is_what_the_template_writes(model):
    turns = [message._asdict() for message in ASKED]
    expected = model.tokenizer.apply_chat_template(turns, tokenize=False)
    opened = model.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert opened != expected
    plan = plan_reading(model, ASKED, "0", chat="template")
    assert plan.prompt == opened
    ids = model.tokenizer(opened, add_special_tokens=False)["input_ids"]
    assert [token.id for token in plan.tokens] == ids
    done = plan_reading(model, ASKED[:2], "0", chat="template")
    expected = model.tokenizer.apply_chat_template(turns[:2], tokenize=False)
    assert done.prompt == expected  # nothing is to be answered


@pytest.mark.parametrize("chat", ["none", "bare"])
def test_a_conversation_needs_the_template(model, chat):
    with pytest.raises(PromptError, match="a conversation needs the tokenizer's chat template"):
        plan_reading(model, ASKED, "0", chat=chat)


def test_a_turn_with_a_begin_token_is_refused(model):
    begin = model.tokenizer.bos_token
    with pytest.raises(PromptError, match="contains the begin token"):
        plan_reading(model, (Message("user", f"{begin}hello"),), "0", chat="template")


@pytest.mark.parametrize("prompt", ["an owl", ASKED])
def test_the_answer_is_the_greedy_one_and_its_tokens_are_read(model, prompt):
    answer = answer_ids(model, prompt, "template", 5)
    ids = prompt_ids(model.tokenizer, prompt, "template")
    seen = list(ids)
    for _ in answer:  # by hand: the most likely token, one forward pass each
        seen.append(int(model.network(torch.tensor([seen])).logits[0, -1].argmax()))
    assert seen[len(ids) :] == answer
    plan = plan_reading(model, prompt, "1", chat="template", special=True, answer=answer)
    assert plan.positions == tuple(range(len(ids), len(ids) + len(answer)))
    assert [plan.tokens[position].id for position in plan.positions] == answer
    assert plan.prompt.endswith(model.tokenizer.decode(answer, skip_special_tokens=True))
    ((_, states),) = read_states(model, plan)
    hidden = model.network(torch.tensor([seen]), output_hidden_states=True).hidden_states[2][0]
    torch.testing.assert_close(states[0], hidden[len(ids) :], atol=1e-4, rtol=1e-4)


def test_positions_choose_from_prompt_and_answer(model):
    answer = answer_ids(model, "an owl", "none", 4)
    plan = plan_reading(model, "an owl", "0", "1,-1", "none", answer=answer)
    assert plan.positions == (1, len(plan.tokens) - 1)


def test_an_answered_conversation_is_not_answered(model):
    with pytest.raises(PromptError, match="ends with an answer"):
        answer_ids(model, ASKED[:2], "template", 4)


def test_an_answer_beyond_the_window_is_refused(model):
    with pytest.raises(PromptError, match="prompt and answer have 100,.* tokens; .* reads at most"):
        answer_ids(model, "an owl", "none", 100_000)


@pytest.fixture
def run(golden_dir, tmp_path):
    def run(*prompt, **options):
        settings = {
            "adapter": str(golden_dir / "adapters/scalar_affine_norm.safetensors"),
            "model": str(golden_dir / "model"),
            "dtype": "float32",
            "max_new_tokens": 5,
            "layers": "1",
            "out": str(tmp_path / "out"),
            **options,
        }
        read(*prompt, **settings)
        return json.loads((tmp_path / "out/reading.json").read_text(encoding="utf-8"))

    return run


def test_the_command_reads_a_file_and_its_answer(run, model, tmp_path):
    file = tmp_path / "m.json"
    file.write_text(json.dumps([message._asdict() for message in ASKED]))
    content = run(messages=str(file), generate=3, special=True)
    answer = answer_ids(model, ASKED, "template", 3)
    read_ids = [content["tokens"][cell["position"]]["id"] for cell in content["cells"]]
    assert read_ids == answer
    assert content["settings"]["answer_tokens"] == len(answer)
    assert content["settings"]["chat"] == "template"
    run(messages=str(file), generate=3, special=True)  # resumed: nothing to do
    with pytest.raises(ConfigError, match="holds a reading with"):
        run(messages=str(file), special=True)


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ((), {}, "give either a text to read"),
        (("an owl",), {"messages": "m.json"}, "give either a text to read"),
        ((), {"messages": "m.json", "chat": "bare"}, "--chat bare is a format for a single text"),
    ],
)
def test_one_prompt_is_given(prompt, options, message, run):
    with pytest.raises(ConfigError, match=message):
        run(*prompt, **options)
