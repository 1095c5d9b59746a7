from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.errors import AdapterError, BindingError, ConfigError, DataError
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import FrozenModel, SoftPrompt, bind
from tiny import golden_tokenizer, tiny_network

KINDS = ("scale_only", "scalar_affine", "low_rank_only", "scalar_affine_plus_low_rank", "full_rank")
NAMES = [f"{kind}_{form}" for kind in KINDS for form in ("norm", "raw")]


@pytest.fixture(scope="module")
def vectors(golden_dir):
    (tensor,) = load_file(golden_dir / "vectors.safetensors").values()
    return tensor


@pytest.fixture
def labeller(model, golden_dir):
    return Labeller(model, load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors"))


@pytest.mark.parametrize("name", NAMES)
def test_greedy_texts_are_the_published_ones_up_to_the_first_end(
    name, golden, golden_dir, model, vectors
):
    (case,) = (case for case in golden["cases"] if case["adapter"] == name)
    adapter = load_adapter(golden_dir / "adapters" / f"{name}.safetensors")
    answers = Labeller(model, adapter).label(vectors, max_new_tokens=10)
    assert len(answers) == len(case["greedy"]) == 8
    for (answer,), published in zip(answers, case["greedy"], strict=True):
        if answer.ended:  # the published run went on for all ten tokens
            assert answer.tokens <= 10
            assert published.startswith(answer.raw)
        else:
            assert '"' not in published
            assert answer.raw == published
            assert answer.tokens == 10


def test_each_vector_gets_scales_times_samples_labels_in_that_order(labeller, vectors):
    answers = labeller.label(vectors[:2], scales=(0.5, 2.0), samples=2, temperature=1.0, seed=3)
    assert [len(labels) for labels in answers] == [4, 4]
    assert [(x.scale, x.sample) for x in answers[1]] == [(0.5, 0), (0.5, 1), (2.0, 0), (2.0, 1)]
    seeds = {label.seed for labels in answers for label in labels}
    assert len(seeds) == 8


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_sampled_labels_do_not_depend_on_the_batch_size(labeller, vectors, batch_size):
    options = {"samples": 3, "temperature": 1.0, "top_p": 0.9, "max_new_tokens": 8, "seed": 11}
    expected = labeller.label(vectors, batch_size=24, **options)
    found = labeller.label(vectors, batch_size=batch_size, **options)
    assert [[x.raw for x in row] for row in found] == [[x.raw for x in row] for row in expected]


@pytest.mark.parametrize(
    "form",
    [
        lambda rows: rows.numpy(),
        lambda rows: rows.numpy().astype(np.float64),
        lambda rows: rows.tolist(),
        lambda rows: tuple(map(tuple, rows.tolist())),
        lambda rows: list(rows),
        lambda rows: list(rows.numpy()),
    ],
    ids=["numpy", "float64", "lists", "tuples", "list of tensors", "list of arrays"],
)
def test_arrays_and_lists_get_the_labels_of_the_tensor(labeller, vectors, form):
    expected = labeller.label(vectors[:3], max_new_tokens=6)
    assert labeller.label(form(vectors[:3]), max_new_tokens=6) == expected
    one = labeller.label(vectors[1:2], max_new_tokens=6)
    assert labeller.label(form(vectors[:3])[1], max_new_tokens=6) == one
    assert one[0][0].raw == expected[1][0].raw


def test_a_shard_writes_what_the_whole_job_writes(labeller, vectors):
    options = {"samples": 2, "temperature": 1.0, "max_new_tokens": 6}
    whole = labeller.label(vectors, **options)
    shard = labeller.label(vectors[5:], first_index=5, **options)
    assert [[x.raw for x in row] for row in shard] == [[x.raw for x in row] for row in whole[5:]]


def test_another_seed_writes_other_labels(labeller, vectors):
    first, second = (
        [row[0].raw for row in labeller.label(vectors, temperature=1.0, seed=seed)]
        for seed in (0, 1)
    )
    assert first != second


def test_the_log_probability_is_that_of_the_tokens_written(labeller, model, vectors):
    (answer,) = labeller.label(vectors[:1], max_new_tokens=5)[0]
    soft = labeller.soft_tokens(vectors[:1])
    ids = list(labeller.prompt.ids)
    total = 0.0
    for _ in range(answer.tokens):  # one plain forward pass a token, no cache
        row = torch.tensor([ids])
        embedded = model.embedding(row).clone()
        for site in labeller.prompt.sites:
            embedded[0, site] = soft[0]
        with torch.no_grad():
            logits = model.network(inputs_embeds=embedded, use_cache=False).logits[0, -1]
        best = int(logits.argmax())
        total += float(logits.log_softmax(-1)[best])
        ids.append(best)
    assert answer.log_prob == pytest.approx(total, rel=1e-4)


def _steered(pieces: list[int], end: int) -> FrozenModel:
    """A model that always writes `pieces` and then `end`: each token's embedding names the next."""
    network = tiny_network("llama")
    with torch.no_grad():
        for parameter in network.model.layers.parameters():
            parameter.zero_()  # the blocks add nothing: logits = head · norm(embedding)
        table = torch.randn(261, 32, generator=torch.Generator().manual_seed(0))
        network.model.embed_tokens.weight.copy_(table)
        network.model.norm.weight.fill_(1.0)
        head = torch.zeros(261, 32)
        chain = [1, *pieces, end]  # the prompt ends with the token for a double quote, id 1
        for now, following in pairwise(chain):
            head[following] += table[now] / table[now].norm() * 50
        network.lm_head.weight.copy_(head)
    return FrozenModel(network, golden_tokenizer(), "steered")


def test_a_row_ends_at_its_closing_quote_and_the_label_is_what_stands_before():
    tokenizer = golden_tokenizer()
    letters = tokenizer(" mouse", add_special_tokens=False)["input_ids"]
    (quote,) = tokenizer('"', add_special_tokens=False)["input_ids"]
    assert quote == 1
    # after the quote the chain would begin again; the row must not go there
    model = _steered(letters, quote)
    answers = Labeller(model, create_adapter("identity", 32)).label(torch.ones(2, 32))
    for (label,) in answers:
        assert label.text == "mouse"
        assert label.raw == ' mouse"'
        assert label.ended
        assert label.tokens == len(letters) + 1


def test_a_row_ends_at_the_end_token_which_is_not_part_of_its_text():
    letters = golden_tokenizer()("owl", add_special_tokens=False)["input_ids"]
    model = _steered(letters, 259)
    ((label,),) = Labeller(model, create_adapter("identity", 32)).label(torch.ones(1, 32))
    assert (label.text, label.raw, label.ended) == ("owl", "owl", True)


def test_a_label_that_does_not_end_is_cut_and_says_so():
    letters = golden_tokenizer()("windy places", add_special_tokens=False)["input_ids"]
    model = _steered(letters, 259)
    labeller = Labeller(model, create_adapter("identity", 32))
    ((label,),) = labeller.label(torch.ones(1, 32), max_new_tokens=6)
    assert (label.text, label.ended, label.tokens) == ("windy", False, 6)


def test_scales_multiply_the_unit_vector_of_a_normalising_adapter(labeller):
    vector = torch.randn(1, 48)
    soft = labeller.soft_tokens(vector, 2.0)
    state = dict(labeller.adapter.named_parameters())
    by_hand = state["log_scale"].exp() * 2.0 * vector / vector.norm() + state["bias"]
    torch.testing.assert_close(soft, by_hand.detach(), rtol=1e-5, atol=1e-6)


def test_the_adapters_own_prompt_is_used_and_its_binding_checked(model):
    prompt = SoftPrompt(
        '<|begin_of_text|>name "<|reserved_special_token_0|>": "', "<|reserved_special_token_0|>"
    )
    adapter = create_adapter("scalar_affine", 48)
    adapter.binding = bind(model, prompt.bind(model.tokenizer), layer=1)
    assert Labeller(model, adapter).prompt.prompt.template == prompt.template
    other = SoftPrompt.for_tokenizer(model.tokenizer)
    with pytest.raises(BindingError, match="prompt template"):
        Labeller(model, adapter, other)
    assert Labeller(model, adapter, other, check=False).prompt.prompt == other
    changed = dataclasses.replace(model, name="other")
    with torch.no_grad():
        norm = model.network.model.layers[0].mlp.down_proj.weight
        kept = norm.clone()
        norm.mul_(5)
        try:
            with pytest.raises(BindingError, match="fingerprint"):
                Labeller(changed, adapter)
        finally:
            norm.copy_(kept)


def test_an_adapter_of_another_width_is_refused(model):
    with pytest.raises(AdapterError, match=r"(?s)47.*48|48.*47"):
        Labeller(model, create_adapter("scale_only", 47))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.ones(2, 47), r"\[n, 48\] is expected"),
        (torch.ones(47), r"\[n, 48\] is expected"),
        (torch.cat([torch.ones(1, 48), torch.full((1, 48), math.nan)]), "vector 1 holds NaN"),
        (torch.full((1, 48), math.inf), "vector 0 holds NaN or infinity"),
    ],
)
def test_bad_vectors_are_refused(labeller, bad, message):
    with pytest.raises(DataError, match=message):
        labeller.label(bad)


def test_zero_and_huge_vectors_give_labels(labeller):
    for value in (0.0, 1e30):
        ((label,),) = labeller.label(torch.full((1, 48), value), max_new_tokens=3)
        assert math.isfinite(label.log_prob)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"scales": ()}, "scales is empty"),
        ({"samples": 0}, "samples is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"batch_size": 2.5}, "batch_size is 2.5; a whole number"),
        ({"samples": 1.5}, "samples is 1.5; a whole number"),
        ({"max_new_tokens": None}, "max_new_tokens is None; a whole number"),
        ({"scales": 1.0}, "scales is 1.0; numbers are expected"),
        ({"scales": "1"}, "scales is '1'; numbers are expected"),
        ({"temperature": "1"}, "temperature is '1'; a number"),
    ],
)
def test_bad_settings_are_refused(labeller, vectors, setting, message):
    with pytest.raises(ConfigError, match=message):
        labeller.label(vectors, **setting)


def test_scales_and_counts_may_be_numbers_of_numpy_and_torch(labeller, vectors):
    usual = labeller.label(vectors, scales=(0.5, 2.0), samples=2, max_new_tokens=2)
    for scales in (np.array([0.5, 2.0]), torch.tensor([0.5, 2.0])):
        assert labeller.label(vectors, scales, np.int64(2), max_new_tokens=2) == usual


def _plain_log_prob(model, prompt, soft, written):
    """log p of the tokens `written` after the prompt with one soft token, with no cache."""
    ids = torch.tensor([[*prompt.ids, *written]])
    embedded = model.embedding(ids).clone()
    for site in prompt.sites:
        embedded[0, site] = soft
    with torch.no_grad():
        logits = model.network(inputs_embeds=embedded, use_cache=False).logits[0]
    table = logits.log_softmax(-1)
    start = len(prompt.ids)
    return sum(float(table[start + i - 1, token]) for i, token in enumerate(written))


def test_the_gain_is_what_the_vector_adds_over_the_zero_vector_a_token(labeller, model, vectors):
    for (label,) in labeller.label(vectors[:3], max_new_tokens=6):
        zero = labeller.soft_tokens(torch.zeros(1, 48))[0]
        at_zero = _plain_log_prob(model, labeller.prompt, zero, label.ids)
        assert label.zero_log_prob == pytest.approx(at_zero, rel=1e-4)
        assert label.gain == pytest.approx((label.log_prob - at_zero) / len(label.ids), abs=1e-4)


def test_the_zero_vector_gains_nothing(labeller):
    ((label,),) = labeller.label(torch.zeros(1, 48), max_new_tokens=6)
    assert label.gain == pytest.approx(0.0, abs=1e-5)


def test_rescoring_gives_the_likelihood_under_another_vector(labeller, model, vectors):
    labels = [answer[0] for answer in labeller.label(vectors[:3], scales=(2.0,), max_new_tokens=5)]
    other = vectors[[2, 0, 1]]
    for label, moved, vector in zip(labels, labeller.rescore(labels, other), other, strict=True):
        soft = labeller.soft_tokens(vector.unsqueeze(0), 2.0)[0]
        by_hand = _plain_log_prob(model, labeller.prompt, soft, label.ids)
        assert moved.log_prob == pytest.approx(by_hand, rel=1e-4)
        assert (moved.text, moved.zero_log_prob) == (label.text, label.zero_log_prob)


@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty`")
def test_the_repetition_penalty_is_the_usual_one(labeller, model, vectors):
    penalty = 1.7
    answers = labeller.label(vectors, max_new_tokens=10, repetition_penalty=penalty)
    plain = labeller.label(vectors, max_new_tokens=10)
    assert [a[0].raw for a in answers] != [a[0].raw for a in plain]
    soft = labeller.soft_tokens(vectors)
    for row, (answer,) in enumerate(answers):
        embedded = model.embedding(torch.tensor([labeller.prompt.ids])).clone()
        for site in labeller.prompt.sites:
            embedded[0, site] = soft[row]
        generated = model.network.generate(
            inputs_embeds=embedded,
            attention_mask=torch.ones(embedded.shape[:2], dtype=torch.int64),
            do_sample=False,
            repetition_penalty=penalty,
            max_new_tokens=len(answer.ids),
            pad_token_id=259,
        )
        assert generated[0].tolist() == list(answer.ids)


def test_a_huge_vector_is_its_direction_to_a_normalising_adapter(labeller, vectors):
    ((huge,),) = labeller.label(vectors[:1] * 1e30, max_new_tokens=5)
    ((usual,),) = labeller.label(vectors[:1], max_new_tokens=5)
    assert huge.raw == usual.raw


def test_seeds_follow_the_names_of_the_vectors(labeller, vectors):
    options = {"temperature": 1.0, "max_new_tokens": 6}
    named = labeller.label(vectors[:2], names=[("a", 5), ("b", 5)], **options)
    swapped = labeller.label(vectors[[1, 0]], names=[("b", 5), ("a", 5)], **options)
    assert [x[0].raw for x in named] == [x[0].raw for x in swapped[::-1]]
    assert named[0][0].seed != named[1][0].seed
