from __future__ import annotations

import pytest
import torch

from selfie_adapters.errors import PromptError
from selfie_adapters.model import FrozenModel, SharedPrefix, SoftPrompt, injected
from selfie_adapters.model.injection import replace_rows
from selfie_adapters.model.library import forward
from tiny import D_MODEL, FAMILIES, golden_tokenizer, tiny_network

TEMPLATE = 'What is "<|reserved_special_token_0|>"? It is "<|reserved_special_token_0|>", or "'
PLACEHOLDER = "<|reserved_special_token_0|>"


@pytest.fixture(scope="module")
def prompt():
    text = "<|begin_of_text|>" + TEMPLATE
    return SoftPrompt(text, PLACEHOLDER, "<|eot_id|>").bind(golden_tokenizer())


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return FrozenModel(tiny_network(request.param), golden_tokenizer(), request.param)


def _ids(prompt, rows):
    tail = torch.tensor([[97, 98, 99], [100, 101, 102]])[:rows]
    return torch.cat([torch.tensor(prompt.ids).expand(rows, -1), tail], dim=1)


def test_the_placeholders_own_embedding_changes_nothing(model, prompt):
    ids = _ids(prompt, 2)
    plain = model.network(input_ids=ids).logits
    row = model.network.get_input_embeddings()(torch.tensor([[prompt.placeholder_id]]))[0, 0]
    with injected(model.embedding, row.expand(2, -1), prompt.placeholder_id, 2):
        soft = model.network(input_ids=ids).logits
    torch.testing.assert_close(soft, plain, rtol=0, atol=0)


def test_another_soft_token_changes_its_own_row_from_its_first_site_on(model, prompt):
    ids = _ids(prompt, 2)
    plain = model.network(input_ids=ids).logits
    row = model.network.get_input_embeddings()(torch.tensor([[prompt.placeholder_id]]))[0, 0]
    soft_tokens = torch.stack([row, row + torch.linspace(-1, 1, D_MODEL)])
    with injected(model.embedding, soft_tokens, prompt.placeholder_id, 2):
        soft = model.network(input_ids=ids).logits
    site = prompt.sites[0]
    torch.testing.assert_close(soft[0], plain[0], rtol=0, atol=0)
    torch.testing.assert_close(soft[1, :site], plain[1, :site])
    assert (soft[1, site:] - plain[1, site:]).abs().amax(dim=-1).min() > 1e-4


def test_the_shared_prefix_changes_neither_logits_nor_gradient(model, prompt):
    ids = _ids(prompt, 2)
    site = prompt.sites[0]
    prefix = SharedPrefix(model, prompt.prefix_ids)
    found = []
    for shared in (False, True):
        soft = torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(3))
        soft.requires_grad_()
        with injected(model.embedding, soft, prompt.placeholder_id, 2):
            if shared:
                out = forward(
                    model.network,
                    input_ids=ids[:, site:],
                    cache=prefix.for_batch(2),
                    use_cache=True,
                ).logits
            else:
                out = model.network(input_ids=ids, use_cache=False).logits[:, site:]
        loss = torch.nn.functional.cross_entropy(out[:, -4:-1].flatten(0, 1), ids[:, -3:].flatten())
        loss.backward()
        found.append((loss.detach(), soft.grad))
    (plain_loss, plain_grad), (shared_loss, shared_grad) = found
    torch.testing.assert_close(shared_loss, plain_loss, rtol=1e-5, atol=0)
    assert (shared_grad - plain_grad).norm() <= 1e-5 * plain_grad.norm()
    assert plain_grad.norm() > 0


def test_a_prefix_can_be_used_again_after_a_batch(model, prompt):
    prefix = SharedPrefix(model, prompt.prefix_ids)
    ids = _ids(prompt, 1)[:, prompt.sites[0] :]
    logits = [
        forward(model.network, input_ids=ids, cache=prefix.for_batch(1), use_cache=True).logits
        for _ in range(2)
    ]
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=0)


def test_gemma_soft_tokens_are_not_scaled_and_granite_scales_after():
    ids = torch.tensor([[256, 260, 97]])
    seen = {}
    for family in ("gemma2", "granite"):
        network = tiny_network(family)
        inputs = {}
        network.model.layers[0].register_forward_pre_hook(
            lambda _m, args, kw=inputs: kw.update(x=args[0])
        )
        with injected(network.get_input_embeddings(), torch.ones(1, D_MODEL), 260, 1):
            network(input_ids=ids)
        seen[family] = inputs["x"][0, 1]
    torch.testing.assert_close(seen["gemma2"], torch.ones(D_MODEL))
    torch.testing.assert_close(seen["granite"], torch.full((D_MODEL,), 12.0))


def test_rows_with_another_number_of_sites_are_refused():
    ids = torch.tensor([[5, 9, 9], [5, 9, 7]])
    with pytest.raises(PromptError, match="row 1 of the batch: 1 placeholder tokens .* has 2"):
        replace_rows(torch.zeros(2, 3, 4), ids, torch.ones(2, 4), placeholder_id=9, sites=2)


def test_one_soft_token_a_row_is_demanded():
    ids = torch.tensor([[5, 9], [9, 7]])
    with pytest.raises(PromptError, match=r"shape \(1, 4\) for a batch of 2 rows"):
        replace_rows(torch.zeros(2, 2, 4), ids, torch.ones(1, 4), placeholder_id=9, sites=1)


def test_an_embedding_that_was_never_called_is_an_error():
    network = tiny_network("llama")
    with (
        pytest.raises(PromptError, match="was not called"),
        injected(network.get_input_embeddings(), torch.ones(1, D_MODEL), 260, 1),
    ):
        network(inputs_embeds=torch.zeros(1, 3, D_MODEL))


def test_the_hook_is_gone_after_an_error():
    network = tiny_network("llama")
    ids = torch.tensor([[256, 97]])
    with (
        pytest.raises(PromptError, match="0 placeholder"),
        injected(network.get_input_embeddings(), torch.ones(1, D_MODEL), 260, 1),
    ):
        network(input_ids=ids)
    assert network(input_ids=ids).logits.isfinite().all()
