from __future__ import annotations

import pytest
import torch

from selfie_adapters.adapters import create_adapter
from selfie_adapters.inference.label_batches import tokenize_labels
from selfie_adapters.model import FrozenModel, SoftPrompt
from selfie_adapters.model.prefix import WholePrompt
from selfie_adapters.model.recompute import recompute_blocks
from selfie_adapters.training import Objective
from tiny import FAMILIES, LAYERS, golden_tokenizer, tiny_network


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_run_twice_and_losses_and_gradients_stay(family):
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for recomputed in (False, True):
        model = FrozenModel(tiny_network(family), golden_tokenizer(), "tiny")
        calls = []
        for block in model.blocks:
            first = next(block.children())
            first.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
        if recomputed:
            recompute_blocks(model)
            prompt = WholePrompt.of(prompt)
        objective = Objective(model, prompt)
        calls.clear()
        tokens = tokenize_labels(model.tokenizer, ["cat", "a dog", "x"], prompt.end_id)
        adapter = create_adapter("scalar_affine", 32, init_scale=3.0)
        loss = objective.microbatch_loss(adapter.transform(vectors), tokens, torch.arange(3))
        loss.per_example.sum().backward()
        assert len(calls) == LAYERS * (2 if recomputed else 1)
        assert not any(module.training for module in model.network.modules())
        found.append((loss.per_example.detach(), adapter.bias.grad))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-6)
