from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from selfie_adapters.adapters import create_adapter
from selfie_adapters.errors import MissingExtraError
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import FrozenModel, load_model
from tiny import golden_tokenizer, tiny_network

HAS_VLLM = find_spec("vllm") is not None


@pytest.mark.skipif(HAS_VLLM, reason="vllm is installed here")
def test_without_vllm_the_error_names_the_install_command():
    from selfie_adapters.labelling.engines.vllm import VllmEngine

    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "tiny")
    with pytest.raises(MissingExtraError, match=r"pip install 'selfie-adapters\[vllm\]'"):
        Labeller(model, create_adapter("identity", 32), engine=VllmEngine)


@pytest.mark.slow
@pytest.mark.skipif(not (HAS_VLLM and torch.cuda.is_available()), reason="needs vllm and a GPU")
def test_vllm_writes_the_greedy_labels_of_the_local_engine():
    from selfie_adapters.labelling.engines.vllm import VllmEngine

    model = load_model("demo", "bfloat16")
    adapter = create_adapter("scale_only", model.d_model, init_scale=3.0)
    vectors = torch.randn(64, model.d_model, generator=torch.Generator().manual_seed(0))
    local = Labeller(model, adapter).label(vectors, max_new_tokens=16)
    other = Labeller(model, adapter, engine=VllmEngine).label(vectors, max_new_tokens=16)
    same = sum(a[0].text == b[0].text for a, b in zip(local, other, strict=True))
    assert same >= 60  # bfloat16 ties fall either way
    for (a,), (b,) in zip(local, other, strict=True):
        if a.text == b.text:
            assert b.log_prob == pytest.approx(a.log_prob, abs=0.3)
            assert a.ended == b.ended
