import pytest
import torch

from selfie_adapters.chat import AnswerCache, ChatRequest, Message
from selfie_adapters.chat.in_process import InProcessChat
from selfie_adapters.config.shared import Sampling
from selfie_adapters.errors import PromptError
from selfie_adapters.inference.generate import next_tokens, row_uniforms
from selfie_adapters.model import FrozenModel
from tiny import FAMILIES, golden_tokenizer, tiny_network

EOT = 259


def tiny(family="llama") -> FrozenModel:
    return FrozenModel(tiny_network(family), golden_tokenizer(), family)


def mixed(count: int) -> list[ChatRequest]:
    """Prompts of several lengths, greedy and drawn, short and long answers."""
    return [
        ChatRequest(
            (Message("system", "Be brief."), Message("user", "why " * (1 + i % 5))),
            max_tokens=3 + i % 9,
            temperature=(0.0, 0.8)[i % 2],
            top_p=0.9,
            seed=i,
            begun="Well" if i % 3 == 0 else "",
        )
        for i in range(count)
    ]


@torch.no_grad()
def plainly(model: FrozenModel, request: ChatRequest) -> str:
    """One answer token by token, the whole sequence run anew each time: no cache, no batch."""
    turns = [message._asdict() for message in request.messages]
    text = model.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = model.tokenizer.encode(text + request.begun, add_special_tokens=False)
    uniforms = row_uniforms([request.seed], request.max_tokens)
    sampling = Sampling(request.temperature, request.top_p)
    written = []
    for step in range(request.max_tokens):
        logits = model.network(input_ids=torch.tensor([ids + written])).logits[:, -1]
        token, _ = next_tokens(logits, sampling, uniforms[:, step])
        if int(token) == EOT:
            break
        written.append(int(token))
    return model.tokenizer.decode(written, skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_write_what_a_plain_loop_writes(family):
    model = tiny(family)
    requests = mixed(12)
    expected = [plainly(model, request) for request in requests]
    assert len(set(expected)) > 3
    for batch_size in (12, 5, 1):
        seen = {}
        texts = InProcessChat(model, batch_size).answer(requests, seen.__setitem__)
        assert texts == expected
        assert seen == dict(enumerate(expected))


def test_greedy_answers_are_those_of_transformers_generate():
    model = tiny()
    request = ChatRequest((Message("user", "Name a bird."),), max_tokens=12)
    ids = torch.tensor([InProcessChat(model)._prompt(0, request)])
    out = model.network.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=EOT)
    expected = model.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert InProcessChat(model).answer([request]) == [expected]


def test_rows_that_end_leave_the_batch():
    model = tiny()
    InProcessChat(model).answer([ChatRequest((Message("user", "a"),), max_tokens=1)])  # trials
    rows = []
    model.embedding.register_forward_hook(lambda _m, args, _out: rows.append(tuple(args[0].shape)))
    same = [
        ChatRequest((Message("user", "a"),), max_tokens=limit, temperature=0.9, seed=limit)
        for limit in (1, 2, 2, 5)
    ]
    other = ChatRequest((Message("user", "bcd"),), max_tokens=5, temperature=0.9, seed=9)
    InProcessChat(model).answer([*same, other])
    (one, shared), (prompts, _width), *steps = rows
    assert (one, prompts) == (1, 2)  # what all share once; of the rest each prompt once
    assert shared == 9  # begin, header begin, u, s, e, r, header end, two line ends
    assert [count for count, _ in steps] == [4, 2, 2, 2]


def test_the_answer_without_its_end_token_and_empty_answers():
    chat = InProcessChat(tiny())
    chat._ends[:] = True  # whatever comes first ends it
    assert chat.answer([ChatRequest((Message("user", "a"),), 4)]) == [""]
    assert chat.answer([]) == []


def test_requests_that_cannot_be_asked():
    model = tiny()
    long = ChatRequest((Message("user", "a" * 500),), max_tokens=8)
    fine = ChatRequest((Message("user", "a"),), max_tokens=8)
    seen = []
    with pytest.raises(PromptError, match=r"request 1: .* reads at most 512"):
        InProcessChat(model).answer([fine, long], lambda *row: seen.append(row))
    assert not seen
    model.tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(
        PromptError, match="request 0: .* refuses these turns .*System role not supported"
    ):
        InProcessChat(model).answer([fine])
    model.tokenizer.chat_template = None
    with pytest.raises(PromptError, match="no chat template"):
        InProcessChat(model).answer([fine])


def test_an_answer_of_other_weights_is_not_taken_from_the_cache(tmp_path):
    request = ChatRequest((Message("user", "Name a bird."),), max_tokens=3)
    model = tiny()
    AnswerCache(InProcessChat(model), tmp_path).answer([request])
    assert not AnswerCache(InProcessChat(tiny()), tmp_path).missing([request])
    with torch.no_grad():
        model.network.get_input_embeddings().weight[7, 3] += 1e-3  # one weight
    changed = AnswerCache(InProcessChat(model), tmp_path)
    assert changed.missing([request]) == [request]
    changed.answer([request])
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2
