from __future__ import annotations

import threading

import pytest
import torch

from selfie_adapters.errors import PromptError
from selfie_adapters.inference import label_loss
from selfie_adapters.inference.label_batches import tokenize_labels
from selfie_adapters.inference.label_loss import Objective
from selfie_adapters.inference.microbatch import split_by_length
from selfie_adapters.model import FrozenModel, SoftPrompt
from selfie_adapters.model.attention import FAMILIES, layout_is_active
from selfie_adapters.model.injection import injected_in_row
from selfie_adapters.model.packed_pass import packs
from selfie_adapters.model.prefix import WholePrompt
from selfie_adapters.model.recompute import recompute_blocks
from tiny import golden_tokenizer, tiny_network

LABELS = ["cat", "a longer label", "é", "x" * 30, "the end", "mm"]
VECTOR_OF = torch.tensor([0, 0, 1, 1, 1, 0])


def tiny_model(family: str, window: int = 300) -> FrozenModel:
    slides = family in ("mistral", "gemma2", "gemma3_text")
    network = tiny_network(family, **({"sliding_window": window} if slides else {}))
    return FrozenModel(network, golden_tokenizer(), family)


def losses(model, monkeypatch, packed: bool, shared: bool, whole: bool = False, rounded=False):
    """Losses of LABELS and the gradient at their soft tokens."""
    monkeypatch.setattr(label_loss, "packing_pays", packs if packed else lambda _model: False)
    prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    objective = Objective(model, WholePrompt.of(prompt) if whole else prompt, label_smoothing=0.1)
    assert (objective._packed is not None) == packed
    if rounded:
        objective._packed._pass.replays = True  # sizes are rounded; nothing comes back here
    tokens = tokenize_labels(model.tokenizer, LABELS, prompt.end_id)
    vectors = torch.randn(2 if shared else 6, 32, generator=torch.Generator().manual_seed(0))
    soft = vectors[VECTOR_OF] if shared else vectors
    soft.requires_grad_()
    of = VECTOR_OF if shared else None
    found = objective.all_losses(soft, tokens, torch.arange(6), of).per_example
    weights = torch.arange(1.0, 7.0)
    return found, torch.autograd.grad((found * weights).sum(), soft)[0]


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_those_of_padded_rows(family, shared, monkeypatch):
    model = tiny_model(family)
    expected, slope = losses(model, monkeypatch, packed=False, shared=shared)
    for whole in (False, True):
        for rounded in (False, True):
            found, gradient = losses(model, monkeypatch, True, shared, whole, rounded)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
            assert (gradient - slope).norm() <= 1e-5 * slope.norm()


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_both_kernels_of_the_library_have_a_packed_counterpart(kernel, monkeypatch):
    network = tiny_network("llama")
    network.set_attn_implementation(kernel)
    model = FrozenModel(network, golden_tokenizer(), "tiny")
    assert network.config._attn_implementation == f"selfie_{kernel}"
    expected, slope = losses(model, monkeypatch, packed=False, shared=True)
    found, gradient = losses(model, monkeypatch, packed=True, shared=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text"])
def test_rows_longer_than_the_window_stay_padded(family, monkeypatch):
    """They would see further back when packed: the window is counted in the text."""
    model = tiny_model(family, window=16)
    expected, slope = losses(model, monkeypatch, packed=False, shared=False)
    found, gradient = losses(model, monkeypatch, packed=True, shared=False)
    assert torch.equal(found, expected)
    assert torch.equal(gradient, slope)
    monkeypatch.setattr(label_loss, "fits_window", lambda _model, _tokens: True)
    found, _ = losses(model, monkeypatch, packed=True, shared=False, whole=True)
    assert (found - expected).abs().max() > 1e-3


def test_a_wrong_packing_is_noticed(monkeypatch):
    from selfie_adapters.inference import packed_rows

    model = tiny_model("llama")
    expected, _ = losses(model, monkeypatch, packed=False, shared=False)
    right = packed_rows.Packing

    def swapped(lengths, *rest, **options):
        packing = right(lengths, *rest, **options)
        packing._index[0] = packing._index[0].roll(1)
        return packing

    monkeypatch.setattr(packed_rows, "Packing", swapped)
    found, _ = losses(model, monkeypatch, packed=True, shared=False)
    assert (found - expected).abs().max() > 1e-3


def test_models_with_other_attention_are_not_packed():
    assert not packs(FrozenModel(tiny_network("gpt_neox"), golden_tokenizer(), "tiny"))
    assert not packs(FrozenModel(tiny_network("lfm2"), golden_tokenizer(), "tiny"))


def test_recomputed_blocks_attend_as_packed_rows_too(monkeypatch):
    model = tiny_model("llama")
    expected, slope = losses(model, monkeypatch, packed=False, shared=True)
    recompute_blocks(model)
    found, gradient = losses(model, monkeypatch, packed=True, shared=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-6)


def test_a_packed_pass_in_one_thread_does_not_reach_another(monkeypatch):
    model = tiny_model("llama")
    ids = torch.arange(24).view(2, 12)
    with torch.no_grad():
        expected = model.network(ids).logits
    packed_before, slope = losses(model, monkeypatch, packed=True, shared=True)
    inside, wrong = [], []
    stop = threading.Event()

    def plain_passes() -> None:
        with torch.no_grad():
            while not stop.is_set():
                inside.append(layout_is_active())
                # the embedding's hook is the other thread's for the length of its pass
                out = model.network(inputs_embeds=model.embedding.weight[ids]).logits
                wrong.append(float((out - expected).abs().max()))

    thread = threading.Thread(target=plain_passes)
    thread.start()
    try:
        for _ in range(10):
            found, gradient = losses(model, monkeypatch, packed=True, shared=True)
            assert torch.equal(found, packed_before)
            assert torch.equal(gradient, slope)
    finally:
        stop.set()
        thread.join()
    assert inside
    assert not any(inside)
    assert max(wrong) < 1e-5


def test_soft_tokens_in_a_row_of_rows_are_counted():
    embedding = torch.nn.Embedding(5, 4)
    soft = torch.tensor([[1.0] * 4, [2.0] * 4])
    lengths = torch.tensor([3, 2])
    ids = torch.tensor([1, 2, 3, 3, 1])
    with injected_in_row(embedding, soft, ids, lengths, 1):
        found = embedding(ids.unsqueeze(0))[0]
    assert torch.equal(found[[0, 4]], soft)
    assert torch.equal(found[1:4], embedding.weight[ids[1:4]])
    for wrong in ([1, 2, 1, 3, 1], [2, 2, 2, 3, 1], [2, 2, 2, 3, 3]):
        with (
            pytest.raises(PromptError, match="placeholder"),
            injected_in_row(embedding, soft, torch.tensor(wrong), lengths, 1),
        ):
            pass
    with (
        pytest.raises(PromptError, match="not called"),
        injected_in_row(embedding, soft, ids, lengths, 1),
    ):
        pass


def test_micro_batches_of_packed_rows_count_no_padding():
    lengths = torch.tensor([3, 9, 4, 4, 20, 1, 7, 8, 8, 8])
    parts = split_by_length(lengths, overhead=5, tokens=60, padded=False)
    assert sorted(torch.cat(parts).tolist()) == list(range(10))
    sizes = [int((lengths[part] + 5).sum()) for part in parts]
    assert max(sizes) <= 60
    assert len(parts) == 3  # 122 tokens: no more than padding would need
