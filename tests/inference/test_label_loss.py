from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch.nn.functional import cross_entropy

from selfie_adapters.adapters import create_adapter
from selfie_adapters.errors import ConfigError, DataError, PromptError
from selfie_adapters.inference.label_batches import build_batch, tokenize_labels
from selfie_adapters.inference.lm_head import head_losses, lm_head, token_losses
from selfie_adapters.inference.microbatch import split_by_length
from selfie_adapters.model import FrozenModel, SoftPrompt, library
from selfie_adapters.training import Objective, label_losses
from selfie_adapters.training.epochs import shuffled_vectors
from tiny import FAMILIES, golden_tokenizer, tiny_network

LABELS = ["cat", "a longer label", "é", "x" * 30, "the end"]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return FrozenModel(tiny_network(request.param), golden_tokenizer(), request.param)


def plain_losses(model, prompt, soft, labels):
    """The whole template and one label at a time, all logits, torch's own loss."""
    losses = []
    for row, label in enumerate(labels):
        label_ids = model.tokenizer(label + '"', add_special_tokens=False)["input_ids"]
        label_ids = [*label_ids, prompt.end_id]
        ids = torch.tensor([[*prompt.ids, *label_ids]])
        handle = model.embedding.register_forward_hook(
            lambda _m, args, out, row=row: torch.where(
                (args[0] == prompt.placeholder_id).unsqueeze(-1), soft[row], out
            )
        )
        logits = model.network(input_ids=ids, use_cache=False).logits[0]
        handle.remove()
        at = len(prompt.ids) - 1
        predicted = logits[at : at + len(label_ids)]
        losses.append(cross_entropy(predicted, torch.tensor(label_ids)))
    return torch.stack(losses)


def test_losses_and_gradients_equal_the_plain_way(model):
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    bound = prompt.bind(model.tokenizer)
    adapter = create_adapter("scalar_affine", 32, init_scale=3.0)
    vectors = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    ours = label_losses(model, prompt, adapter, vectors, LABELS)
    ours.mean().backward()
    gradient = adapter.bias.grad.clone()
    adapter.zero_grad()
    plain = plain_losses(model, bound, adapter.transform(vectors), LABELS)
    plain.mean().backward()
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    assert (gradient - adapter.bias.grad).norm() <= 1e-5 * adapter.bias.grad.norm()
    assert all(weight.grad is None for weight in model.network.parameters())


@pytest.mark.parametrize("lacking", ["_takes_mask", "_takes"])
def test_models_that_take_no_mask_of_logits_give_the_same(model, lacking, monkeypatch):
    """Those index whole columns (all of transformers before 5.21), or return every logit."""
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    adapter = create_adapter("identity", 32)
    vectors = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    expected = label_losses(model, prompt, adapter, vectors, LABELS)
    takes = library._takes
    without = {
        "_takes_mask": lambda _kind: False,
        "_takes": lambda kind, name: name != "logits_to_keep" and takes(kind, name),
    }
    monkeypatch.setattr(library, lacking, without[lacking])
    found = label_losses(model, prompt, adapter, vectors, LABELS)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_a_prompt_that_begins_with_its_placeholder_shares_nothing_and_works():
    model = FrozenModel(tiny_network("gpt_neox"), golden_tokenizer(), "tiny")
    model.tokenizer.chat_template = None
    model.tokenizer.bos_token = None
    prompt = SoftPrompt('<|reserved_special_token_0|> means "', "<|reserved_special_token_0|>")
    bound = prompt.bind(model.tokenizer)
    assert bound.prefix_ids == ()
    adapter = create_adapter("identity", 32)
    vectors = torch.randn(5, 32)
    ours = label_losses(model, prompt, adapter, vectors, LABELS)
    plain = plain_losses(model, bound, adapter.transform(vectors), LABELS)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_a_label_cannot_pose_as_the_placeholder_or_end_the_turn():
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    bound = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    text = "<|reserved_special_token_0|> <|eot_id|>"
    tokens = tokenize_labels(model.tokenizer, [text], bound.end_id)
    ids = tokens.ids.tolist()
    assert len(ids) == len(text) + 2  # one id a byte, the quote, the end
    assert bound.placeholder_id not in ids
    assert ids.count(bound.end_id) == 1
    loss = label_losses(
        model,
        SoftPrompt.for_tokenizer(model.tokenizer),
        create_adapter("identity", 32),
        torch.ones(1, 32),
        [text],
    )
    assert loss.isfinite().all()


def test_a_batch_holds_prompt_and_labels_in_their_places():
    tokenizer = golden_tokenizer()
    bound = SoftPrompt.for_tokenizer(tokenizer).bind(tokenizer)
    tokens = tokenize_labels(tokenizer, ["ab", "c"], bound.end_id)
    batch = build_batch(bound, tokens, torch.tensor([1, 0]))
    a, b, c, quote = tokenizer('abc"', add_special_tokens=False)["input_ids"]
    suffix = list(bound.suffix_ids)
    assert batch.ids.tolist() == [
        [*suffix, c, quote, bound.end_id],  # the last of them is padding
        [*suffix, a, b, quote],
    ]
    assert batch.targets.tolist() == [c, quote, bound.end_id, a, b, quote, bound.end_id]
    assert batch.target_labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert batch.predictors.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert batch.visible is None
    assert batch.keep.sum(dim=1).tolist() == [3, 4]
    assert batch.keep.nonzero()[0].tolist() == [0, len(suffix) - 1]


def test_parts_are_sorted_complete_and_within_the_token_limit():
    lengths = torch.tensor([3, 9, 4, 4, 20, 1, 7])
    parts = split_by_length(lengths, overhead=5, tokens=30)
    assert sorted(torch.cat(parts).tolist()) == list(range(7))
    for part in parts:
        width = int(lengths[part].max()) + 5
        assert len(part) == 1 or len(part) * width <= 30
    flat = lengths[torch.cat(parts)].tolist()
    assert flat == sorted(flat, reverse=True)


def test_a_row_longer_than_the_limit_is_a_part_of_its_own():
    assert [p.tolist() for p in split_by_length(torch.tensor([50, 2]), 1, 10)] == [[0], [1]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_token_losses_and_their_gradient_are_torchs(smoothing):
    generator = torch.Generator().manual_seed(0)
    ours = (torch.randn(50, 70_001, generator=generator) * 5).requires_grad_()
    targets = torch.randint(70_001, (50,), generator=generator)
    weights = torch.rand(50, generator=generator)
    losses = token_losses(ours, targets, smoothing)
    (losses * weights).sum().backward()
    theirs = ours.detach().double().requires_grad_()
    expected = cross_entropy(theirs, targets, reduction="none", label_smoothing=smoothing)
    (expected * weights).sum().backward()
    torch.testing.assert_close(losses, expected.float(), rtol=2e-6, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad.float(), rtol=1e-5, atol=1e-9)


def test_token_losses_of_bfloat16_logits_are_taken_in_float32():
    logits = torch.tensor([[100.0, 100.5, 0.0]], dtype=torch.bfloat16)
    expected = cross_entropy(logits.float(), torch.tensor([1]))
    assert float(token_losses(logits, torch.tensor([1]))) == pytest.approx(float(expected))


def test_clamped_tokens_give_no_gradient():
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    adapter = create_adapter("scalar_affine", 32)
    losses = label_losses(model, prompt, adapter, torch.ones(1, 32), ["abc"], max_loss=1e-3)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([1e-3])
    assert float(adapter.bias.grad.norm()) == 0.0


def test_as_many_labels_as_vectors_are_demanded():
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    with pytest.raises(DataError, match="2 labels for 1 vectors"):
        label_losses(model, prompt, create_adapter("identity", 32), torch.ones(1, 32), ["a", "b"])
    with pytest.raises(DataError, match="label 0 is empty"):
        label_losses(model, prompt, create_adapter("identity", 32), torch.ones(1, 32), [""])


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"labels": []}, DataError, "0 labels for 2 vectors"),
        ({"labels": [], "vectors": torch.ones(0, 32)}, DataError, "0 labels for 0 vectors"),
        ({"labels": ["a", 3]}, DataError, "label 1 is 3; a string is expected"),
        ({"labels": ["a", None]}, DataError, "label 1 is None; a string is expected"),
        ({"labels": "ab"}, DataError, "labels is the string 'ab'; a list of strings is expected"),
        ({"label_smoothing": 1.0}, ConfigError, "label_smoothing is 1.0; from 0 to below 1"),
        ({"label_smoothing": -0.1}, ConfigError, "label_smoothing is -0.1"),
        ({"max_loss": 0.0}, ConfigError, "max_loss is 0.0; a positive number"),
        ({"max_loss": float("nan")}, ConfigError, "max_loss is nan"),
    ],
)
def test_arguments_that_make_no_loss_are_refused_in_one_line(changes, error, says):
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    given = {"vectors": torch.ones(2, 32), "labels": ["a", "b"]} | changes
    with pytest.raises(error, match=says):
        label_losses(model, prompt, create_adapter("identity", 32), **given)


def test_an_end_token_of_several_tokens_is_refused():
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    with pytest.raises(PromptError, match='"stop" is 4 tokens'):
        label_losses(
            model, prompt, create_adapter("identity", 32), torch.ones(1, 32), ["a"], "stop"
        )


def test_an_objective_is_reusable_and_keeps_the_order_of_its_rows():
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    bound = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    objective = Objective(model, bound)
    tokens = tokenize_labels(model.tokenizer, LABELS, bound.end_id)
    soft = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    chosen = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        mixed = objective.all_losses(soft[chosen], tokens, chosen).per_example
        single = [objective.all_losses(soft[[i]], tokens, torch.tensor([i])) for i in range(5)]
    expected = torch.cat([one.per_example for one in single])[chosen]
    torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-6)


SEVERAL = ["cat", "a longer label", "é", "x" * 30, "the end", "b" * 100, "c" * 120, "d" * 90]
VECTOR_OF = torch.tensor([0, 1, 0, 0, 2, 0, 0, 0])


def losses_and_gradient(objective, vectors, tokens, vector_of):
    adapter = create_adapter("scalar_affine", 32, init_scale=3.0)
    soft = adapter.transform(vectors[VECTOR_OF])
    losses = objective.all_losses(soft, tokens, torch.arange(8), vector_of).per_example
    losses.mean().backward()
    return losses.detach(), adapter.bias.grad


def test_labels_that_share_a_row_keep_their_losses_and_gradients(model):
    bound = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    objective = Objective(model, bound)
    tokens = tokenize_labels(model.tokenizer, SEVERAL, bound.end_id)
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    alone, gradient = losses_and_gradient(objective, vectors, tokens, None)
    shared, shared_gradient = losses_and_gradient(objective, vectors, tokens, VECTOR_OF)
    torch.testing.assert_close(shared, alone, rtol=1e-5, atol=0)
    assert (shared_gradient - gradient).norm() <= 1e-5 * gradient.norm()


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3_text", "mistral", "granite"])
def test_the_prompt_goes_through_the_model_once_a_vector(family):
    # windows of 16 tokens let nothing share (the test above); real ones are longer than any label
    network = tiny_network(family)
    for module in network.modules():
        if getattr(module, "sliding_window", None):
            module.sliding_window = 512
    if getattr(network.config, "sliding_window", None):
        network.config.sliding_window = 512
    model = FrozenModel(network, golden_tokenizer(), family)
    bound = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    objective = Objective(model, bound)
    tokens = tokenize_labels(model.tokenizer, SEVERAL, bound.end_id)
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    alone, _ = losses_and_gradient(objective, vectors, tokens, None)
    objective.microbatches(tokens, torch.arange(8), VECTOR_OF)
    seen = []
    handle = model.embedding.register_forward_hook(lambda _m, args, _out: seen.append(args[0]))
    shared, _ = losses_and_gradient(objective, vectors, tokens, VECTOR_OF)
    handle.remove()
    prompts = sum(int((ids == bound.placeholder_id).sum()) for ids in seen) / len(bound.sites)
    # vectors 1 and 2 fill a row each; vector 0, with 352 tokens of labels, takes two
    assert prompts == 4
    torch.testing.assert_close(shared, alone, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("family", "window"),
    [
        ("gpt_neo", {"window_size": 100}),  # hides what is far away in the row, labels between too
        ("llama4_text", {"attention_chunk_size": 100}),  # the longest labels reach beyond it
        ("mistral", {"sliding_window": 100}),
    ],
)
def test_labels_share_rows_only_within_a_window(family, window):
    model = FrozenModel(tiny_network(family, **window), golden_tokenizer(), family)
    bound = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    assert len(bound.ids) + 6 < 100
    soft = torch.randn(1, 32, generator=torch.Generator().manual_seed(0)).expand(8, -1) * 3
    objective = Objective(model, bound)
    short = [f"label {i}" for i in range(8)]
    for labels in (short, [*short[:6], "b" * 60, "d" * 90]):
        tokens = tokenize_labels(model.tokenizer, labels, bound.end_id)
        with torch.no_grad():
            shared = objective.all_losses(soft, tokens, torch.arange(8), torch.zeros(8)).per_example
            plain = plain_losses(model, bound, soft, labels)
        torch.testing.assert_close(shared, plain, rtol=1e-5, atol=1e-6)


def test_states_do_not_pass_from_label_to_label():
    network = tiny_network("lfm2")
    for name, weight in network.named_parameters():
        if "conv.conv" in name:
            weight.data.mul_(1e-3)  # what passes is less than the trial's tolerance
    model = FrozenModel(network, golden_tokenizer(), "lfm2")
    objective = Objective(model, SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer))
    assert not objective._sharing_is_exact


def test_a_model_that_ignores_masks_gets_a_row_for_each_label():
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    decoder = model.network.get_decoder()
    forward = decoder.forward

    def deaf(*args, attention_mask=None, **kwargs):
        return forward(*args, **kwargs)

    decoder.forward = deaf  # the network's own passes go through it too
    bound = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    objective = Objective(model, bound)
    tokens = tokenize_labels(model.tokenizer, SEVERAL, bound.end_id)
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    alone, _ = losses_and_gradient(objective, vectors, tokens, None)
    shared, _ = losses_and_gradient(objective, vectors, tokens, VECTOR_OF)
    torch.testing.assert_close(shared, alone, rtol=1e-5, atol=0)


def test_labels_of_a_row_branch_off_the_prompt():
    tokenizer = golden_tokenizer()
    bound = SoftPrompt.for_tokenizer(tokenizer).bind(tokenizer)
    tokens = tokenize_labels(tokenizer, ["ab", "c", "d"], bound.end_id)
    batch = build_batch(bound, tokens, torch.arange(3), torch.tensor([0, 1, 0]))
    a, b, c, d, quote = tokenizer('abcd"', add_special_tokens=False)["input_ids"]
    suffix = list(bound.suffix_ids)
    n = len(suffix)
    assert batch.ids.tolist() == [
        [*suffix, a, b, quote, d, quote],
        [*suffix, c, quote, *[bound.end_id] * 3],
    ]
    assert batch.positions[0].tolist() == [*range(n), n, n + 1, n + 2, n, n + 1]
    end = bound.end_id
    assert batch.targets.tolist() == [a, b, quote, end, c, quote, end, d, quote, end]
    # both first tokens of row 0 come from the prompt's last position, the first that is kept
    assert batch.predictors.tolist() == [0, 1, 2, 3, 6, 7, 8, 0, 4, 5]
    assert batch.first_labels.tolist() == [0, 1]
    assert batch.visible[0, n + 3].tolist() == [True] * n + [False] * 3 + [True, False]
    assert batch.visible[0, n + 2].tolist() == [True] * (n + 3) + [False] * 2
    assert batch.visible[0, n - 1].tolist() == [True] * n + [False] * 5


def test_shuffled_vectors_keep_their_labels_together():
    vector_of = torch.tensor([5, 5, 2, 9, 2, 5])
    seen = set()
    for seed in range(60):
        order = shuffled_vectors(vector_of, torch.Generator().manual_seed(seed))
        assert sorted(order.tolist()) == list(range(6))
        seen.add(tuple(order.tolist()))
    blocks = ((0, 1, 5), (2, 4), (3,))
    assert seen == {sum(some, ()) for some in permutations(blocks)}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("biased", [False, True])
def test_losses_before_the_head_are_those_of_its_logits(smoothing, biased):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3_001, 8, generator=generator)
    bias = torch.randn(3_001, generator=generator) if biased else None
    hidden = torch.randn(1_500, 8, generator=generator).requires_grad_()
    predictors = torch.randint(
        1_500, (3_000,), generator=generator
    )  # some never, some several times
    targets = torch.randint(3_001, (3_000,), generator=generator)
    weights = torch.rand(3_000, generator=generator)
    losses = head_losses(hidden, weight, bias, targets, smoothing, predictors)
    (losses * weights).sum().backward()
    exact = hidden.detach().double().requires_grad_()
    logits = exact @ weight.double().T + (0 if bias is None else bias.double())
    expected = cross_entropy(
        logits[predictors], targets, reduction="none", label_smoothing=smoothing
    )
    (expected * weights).sum().backward()
    torch.testing.assert_close(losses.detach(), expected.detach().float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(hidden.grad, exact.grad.float(), rtol=1e-5, atol=1e-5)


def test_one_row_of_logits_may_predict_several_targets():
    logits = torch.randn(3, 11, generator=torch.Generator().manual_seed(0)).requires_grad_()
    predictors, targets = torch.tensor([2, 0, 2, 2]), torch.tensor([1, 4, 10, 1])
    losses = token_losses(logits, targets, 0.1, predictors)
    losses.pow(2).sum().backward()
    theirs = logits.detach().clone().requires_grad_()
    expected = cross_entropy(theirs[predictors], targets, reduction="none", label_smoothing=0.1)
    expected.pow(2).sum().backward()
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(logits.grad, theirs.grad)


def test_which_heads_are_linear():
    # Granite scales its logits and Gemma 2 caps them: for them the head's output is not the logits
    linear = {
        family: lm_head(FrozenModel(tiny_network(family), golden_tokenizer(), family)).linear
        for family in FAMILIES
    }
    assert {family for family, head in linear.items() if head is None} == {"granite", "gemma2"}
