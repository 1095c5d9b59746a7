"""Every family, recurrent and hybrid ones too, against rows that are run whole, one at a time."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from selfie_adapters import Labeller, SoftPrompt, create_adapter, label_losses
from selfie_adapters.chat.in_process import InProcessChat
from selfie_adapters.chat.request import ChatRequest, Message
from selfie_adapters.errors import ModelError
from selfie_adapters.inference.continuation import Continuation
from selfie_adapters.inference.label_scores import score_candidates
from selfie_adapters.model import FrozenModel, SharedPrefix, capture
from selfie_adapters.model.cache_use import cache_use
from selfie_adapters.reading.plan import plan_reading
from selfie_adapters.reading.read import read_states
from selfie_adapters.sources.topics.reading import topic_vectors
from tiny import D_MODEL, FAMILIES, RECURRENT, golden_tokenizer, tiny_network

OTHERS = ("gemma3n_text", "gpt2", "openai-gpt", "opt")
# Their `hidden_states` begin with the first block's output instead of the embedding's.
NO_EMBEDDING_STATE = ("mamba", "mamba2", "falcon_mamba", "rwkv")
PLACEHOLDER = "<|reserved_special_token_0|>"
PROMPT = SoftPrompt(
    f'<|begin_of_text|>What is "{PLACEHOLDER}"? "{PLACEHOLDER}" is "', PLACEHOLDER, "<|eot_id|>"
)
LABELS = ["owl", "a night bird", "sea", "o"]

everywhere = pytest.mark.parametrize("family", [*FAMILIES, *OTHERS, *RECURRENT])
recurrent = pytest.mark.parametrize("family", RECURRENT)


def model_of(family: str) -> FrozenModel:
    return FrozenModel(tiny_network(family), golden_tokenizer(), family)


def plain_logits(model: FrozenModel, ids: list[int], soft: torch.Tensor) -> torch.Tensor:
    """[tokens, vocabulary] of one row without a cache, soft at the prompt's placeholders."""
    prompt = PROMPT.bind(model.tokenizer)

    def hook(_module: nn.Module, _args: object, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        for site in prompt.sites:
            out[0, site] = soft
        return out

    handle = model.embedding.register_forward_hook(hook)
    try:
        return model.network(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    finally:
        handle.remove()


def plain_log_prob(model: FrozenModel, label: str, soft: torch.Tensor) -> tuple[float, int]:
    prompt = PROMPT.bind(model.tokenizer)
    answer = [*model.tokenizer.encode(label + '"', add_special_tokens=False), prompt.end_id]
    log_probs = plain_logits(model, [*prompt.ids, *answer], soft).log_softmax(-1)
    start = len(prompt.ids) - 1
    return sum(float(log_probs[start + i, token]) for i, token in enumerate(answer)), len(answer)


def soft_tokens(n: int) -> torch.Tensor:
    return torch.randn(n, D_MODEL, generator=torch.Generator().manual_seed(7))


def identity():
    return create_adapter("identity", D_MODEL, normalize_input=False)


@everywhere
@torch.no_grad()
def test_losses_are_those_of_whole_rows(family: str) -> None:
    model = model_of(family)
    soft = soft_tokens(len(LABELS))
    losses = label_losses(model, PROMPT, identity(), soft, LABELS)
    for loss, label, row in zip(losses, LABELS, soft, strict=True):
        log_prob, tokens = plain_log_prob(model, label, row)
        assert float(loss) == pytest.approx(-log_prob / tokens, abs=2e-4)


@recurrent
def test_gradients_are_those_of_whole_rows(family: str) -> None:
    model = model_of(family)
    soft = soft_tokens(2).requires_grad_()
    label_losses(model, PROMPT, identity(), soft, ["a bird", "sea"]).sum().backward()
    ours = soft.grad
    assert ours is not None
    alone = soft.detach().clone().requires_grad_()
    prompt = PROMPT.bind(model.tokenizer)
    for row, label in enumerate(("a bird", "sea")):
        answer = [*model.tokenizer.encode(label + '"', add_special_tokens=False), prompt.end_id]
        logits = plain_logits(model, [*prompt.ids, *answer], alone[row])
        predicted = logits[len(prompt.ids) - 1 : -1]
        nn.functional.cross_entropy(predicted, torch.tensor(answer)).backward()
    torch.testing.assert_close(ours, alone.grad, atol=1e-5, rtol=1e-3)


@everywhere
@torch.no_grad()
def test_scores_of_candidates_are_those_of_whole_rows(family: str) -> None:
    model = model_of(family)
    soft = soft_tokens(3)
    scores = score_candidates(model, PROMPT.bind(model.tokenizer), soft, LABELS)
    for vector in range(3):
        for i, label in enumerate(LABELS):
            expected, tokens = plain_log_prob(model, label, soft[vector])
            assert float(scores.log_probs[vector, i]) == pytest.approx(expected, abs=1e-3)
            assert int(scores.tokens[i]) == tokens


@everywhere
@torch.no_grad()
def test_greedy_labels_are_those_of_whole_rows(family: str) -> None:
    model = model_of(family)
    soft = soft_tokens(6)
    labels = Labeller(model, identity(), PROMPT).label(soft, max_new_tokens=8)
    prompt = PROMPT.bind(model.tokenizer)
    lengths = set()
    for (label,), row in zip(labels, soft, strict=True):
        ids: list[int] = []
        log_prob = 0.0
        while len(ids) < 8:
            log_probs = plain_logits(model, [*prompt.ids, *ids], row)[-1].log_softmax(-1)
            ids.append(int(log_probs.argmax()))
            log_prob += float(log_probs.max())
            if ids[-1] == prompt.end_id or '"' in model.tokenizer.decode(ids[-1:]):
                break
        assert list(label.ids) == ids
        assert label.log_prob == pytest.approx(log_prob, abs=1e-3)
        lengths.add(len(ids))
        zero = 0.0
        log_probs = plain_logits(model, [*prompt.ids, *ids], torch.zeros(D_MODEL)).log_softmax(-1)
        for i, token in enumerate(ids):
            zero += float(log_probs[len(prompt.ids) - 1 + i, token])
        assert label.zero_log_prob == pytest.approx(zero, abs=1e-3)


@recurrent
@torch.no_grad()
def test_rows_that_leave_do_not_change_the_others(family: str) -> None:
    model = model_of(family)
    ids = torch.randint(0, 250, (3, 7), generator=torch.Generator().manual_seed(1))
    more = torch.randint(0, 250, (3, 3), generator=torch.Generator().manual_seed(2))
    rows = Continuation(model, ids)
    rows.read(more[:, 0])
    rows.select(torch.tensor([2, 0]))
    rows.read(more[[2, 0], 1])
    for at, row in enumerate((2, 0)):
        whole = torch.cat([ids[row], more[row, :2]]).unsqueeze(0)
        expected = model.network(input_ids=whole, use_cache=False).logits[0, -1]
        torch.testing.assert_close(rows.logits[at], expected, atol=2e-4, rtol=1e-3)


@recurrent
def test_a_model_that_generates_the_placeholder_reads_it_as_a_token(family: str) -> None:
    model = model_of(family)
    prompt = PROMPT.bind(model.tokenizer)
    if cache_use(model).steps:
        pytest.skip("the cache of this model is used for single tokens")
    from selfie_adapters.inference.slot_rows import after_prompt
    from selfie_adapters.model.prefix import WholePrompt

    whole = WholePrompt.of(prompt)
    read = after_prompt(model, whole, SharedPrefix(model, ()), soft_tokens(1))
    read.read(torch.tensor([prompt.placeholder_id]))
    expected = plain_logits(model, [*prompt.ids, prompt.placeholder_id], soft_tokens(1)[0])[-1]
    torch.testing.assert_close(read.logits[0].float(), expected, atol=2e-4, rtol=1e-3)


@everywhere
@torch.no_grad()
def test_captured_states_are_those_of_whole_rows(family: str) -> None:
    model = model_of(family)
    texts = ["owls", "night", "a bird of prey", "owls at night"]
    found = topic_vectors(model, [f"<|begin_of_text|>{text}" for text in texts], [0, 1])
    for text, vector in zip(texts, found, strict=True):
        row = [256, *model.tokenizer.encode(text, add_special_tokens=False)]
        hidden = model.network(
            input_ids=torch.tensor([row]), use_cache=False, output_hidden_states=True
        ).hidden_states
        for i, layer in enumerate((0, 1)):
            state = hidden[layer + (family not in NO_EMBEDDING_STATE)]
            state = state[0] if state.ndim == 4 else state  # Gemma 3n
            torch.testing.assert_close(vector[i], state[0, -1].float(), atol=1e-4, rtol=1e-3)


@recurrent
@torch.no_grad()
def test_chat_answers_are_those_of_whole_rows(family: str) -> None:
    model = model_of(family)
    model.tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}:"
    )
    said = ["owl", "owls", "sea", "by night"]
    requests = [
        ChatRequest((Message("user", text),), temperature=0.0, max_tokens=6) for text in said
    ]
    answers = InProcessChat(model, batch_size=3).answer(requests)
    end = model.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    for text, answer in zip(said, answers, strict=True):
        ids = model.tokenizer.encode(f"<|begin_of_text|>{text}:", add_special_tokens=False)
        written: list[int] = []
        while len(written) < 6:
            whole = torch.tensor([[*ids, *written]])
            token = int(model.network(input_ids=whole, use_cache=False).logits[0, -1].argmax())
            if token in (end, 259):
                break
            written.append(token)
        assert answer == model.tokenizer.decode(written, skip_special_tokens=True)


@everywhere
@torch.no_grad()
def test_a_long_prompt_is_read_in_pieces_that_fit_together(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(family)
    plan = plan_reading(model, "owls fly at night", [0, 1], None, "none")
    ((_, whole),) = read_states(model, plan)
    monkeypatch.setattr("selfie_adapters.reading.read._TOKENS_AT_ONCE", 5)
    pieces = torch.cat([states for _, states in read_states(model, plan)], dim=1)
    torch.testing.assert_close(pieces, whole, atol=1e-4, rtol=1e-3)


def test_what_caches_are_good_for_is_found_out_once() -> None:
    for family in FAMILIES:
        assert cache_use(model_of(family)).branches, family
    for family in ("lfm2", "qwen3_next", "mamba", "rwkv"):
        assert not cache_use(model_of(family)).branches, family
    model = model_of("llama")
    passes = []
    model.network.register_forward_hook(lambda *_: passes.append(1))
    first = cache_use(model)
    tried = len(passes)
    assert tried
    assert cache_use(model) is first
    assert len(passes) == tried


def test_a_model_that_cannot_run_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")

    def broken(*_args: object, **_options: object) -> None:
        raise RuntimeError("mamba kernels are missing")

    monkeypatch.setattr(model.blocks[1], "forward", broken)
    with pytest.raises(ModelError, match=r"llama.*cannot be run: mamba kernels are missing"):
        Labeller(model, identity(), PROMPT)


def test_an_encoder_is_refused_before_any_work() -> None:
    with pytest.raises(ModelError, match=r"bert \(BertLMHeadModel\) is no causal language model"):
        Labeller(model_of("bert"), identity(), PROMPT)


def test_an_embedding_narrower_than_the_blocks_is_refused_before_any_work() -> None:
    network: PreTrainedModel = tiny_network("opt", word_embed_proj_dim=16)
    model = FrozenModel(network, golden_tokenizer(), "narrow")
    for attempt in (
        lambda: Labeller(model, identity(), PROMPT),
        lambda: label_losses(model, PROMPT, identity(), soft_tokens(1), ["owl"]),
        lambda: score_candidates(model, PROMPT.bind(model.tokenizer), soft_tokens(1), ["owl"]),
    ):
        with pytest.raises(ModelError, match=r"narrow embeds tokens in 16 .* d_model 32"):
            attempt()
    assert capture(model, torch.tensor([[1, 2]]), [1]).shape == (1, 1, 2, 32)  # reading works
