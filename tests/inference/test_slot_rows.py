from __future__ import annotations

import pytest
import torch

from selfie_adapters.config.shared import Sampling
from selfie_adapters.inference import slot_rows as module
from selfie_adapters.inference.generate import generate_labels, quote_tokens
from selfie_adapters.inference.label_scores import score_candidates
from selfie_adapters.inference.lm_head import lm_head
from selfie_adapters.inference.slot_rows import SlotRows
from selfie_adapters.model import FrozenModel, SharedPrefix, SoftPrompt
from selfie_adapters.model.attention import FAMILIES
from selfie_adapters.model.packed_pass import packs
from selfie_adapters.model.prefix import WholePrompt
from tiny import golden_tokenizer, tiny_network

LABELS = ["cat", "a longer label", "é", "x" * 30, "the end", "mm"]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    slides = request.param in ("mistral", "gemma2", "gemma3_text")
    network = tiny_network(request.param, **({"sliding_window": 800} if slides else {}))
    return FrozenModel(network, golden_tokenizer(), request.param)


def both(monkeypatch, compute):
    """What `compute` returns with a cache of transformers, and in packed passes."""
    expected = compute()
    monkeypatch.setattr(module, "packing_pays", packs)
    made = []
    right = SlotRows.__init__
    monkeypatch.setattr(SlotRows, "__init__", lambda self, *x: (made.append(1), right(self, *x))[1])
    found = compute()
    return expected, found, bool(made)


def packed(model) -> bool:
    return lm_head(model).linear is not None  # not so in Granite and Gemma 2


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_those_of_the_librarys_cache(model, temperature, whole, monkeypatch):
    """Rows end at different tokens, so that rows are selected on the way."""
    bound = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    prompt = WholePrompt.of(bound) if whole else bound
    prefix = SharedPrefix(model, prompt.prefix_ids)
    soft = 3 * torch.randn(9, 32, generator=torch.Generator().manual_seed(1))
    sampling = Sampling(temperature=temperature, top_p=0.9, max_new_tokens=12)
    ends = quote_tokens(model).clone()
    ends[::9] = True  # more endings than a tiny random model would find

    def answers():
        return generate_labels(model, prompt, prefix, soft, list(range(9)), sampling, ends)

    expected, found, used = both(monkeypatch, answers)
    assert used == packed(model)
    assert [a.ids for a in found] == [a.ids for a in expected]
    assert temperature == 0 or len({len(a.ids) for a in found}) > 1
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.log_prob == pytest.approx(theirs.log_prob, rel=1e-4, abs=1e-4)


def test_candidates_are_scored_as_with_the_librarys_cache(model, monkeypatch):
    prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    soft = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))

    def scores():
        return score_candidates(model, prompt, soft, LABELS).log_probs

    expected, found, used = both(monkeypatch, scores)
    assert used == packed(model)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
