"""Models that cannot hold soft tokens are refused in one line, before any work."""

from __future__ import annotations

import pytest
import torch
from transformers import BartConfig, BartForCausalLM

from selfie_adapters import Labeller, SoftPrompt, create_adapter, label_losses, load_model
from selfie_adapters.errors import ModelError
from selfie_adapters.model import FrozenModel, capture
from selfie_adapters.model.blocks import decoder_blocks
from selfie_adapters.model.suitable import check_model
from tiny import D_MODEL, LAYERS, golden_tokenizer, tiny_network
from tiny_folders import save_causal

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8}


def test_blocks_that_are_run_in_a_loop_are_refused_when_loading(tmp_path):
    folder = save_causal(tmp_path / "hrm", "hrm_text", vocab_size=261, **_SMALL)
    with pytest.raises(ModelError, match="HrmTextForCausalLM is no stack of decoder blocks"):
        load_model(folder)


def test_blocks_of_several_widths_are_refused_when_loading(tmp_path):
    part = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    parts = {f"{name}_config": part for name in ("patcher", "encoder", "decoder", "global")}
    folder = save_causal(tmp_path / "blt", "blt", encoder_hash_byte_group_vocab=100, **parts)
    with pytest.raises(ModelError, match="BltForCausalLM.*its configuration states no"):
        load_model(folder)


def test_the_decoder_of_an_encoder_decoder_model_has_the_decoders_blocks():
    sizes = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 261}
    config = BartConfig(d_model=32, encoder_layers=2, decoder_layers=3, is_decoder=True, **sizes)
    network = BartForCausalLM(config)
    assert decoder_blocks(network) is network.get_decoder().layers


def test_a_block_of_two_layers_is_one():
    network = tiny_network("longcat_flash")
    assert network.config.num_hidden_layers == 2 * LAYERS
    assert decoder_blocks(network) is network.model.layers


def test_several_residual_streams_take_labels_but_have_no_states():
    model = FrozenModel(tiny_network("deepseek_v4"), golden_tokenizer(), "streams")
    vectors = torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(0))
    adapter = create_adapter("identity", D_MODEL)
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    assert label_losses(model, prompt, adapter, vectors, ["cat", "a dog"]).isfinite().all()
    labeller = Labeller(model, adapter, prompt)
    assert len(labeller.binding.fingerprint) == LAYERS
    assert [len(of) for of in labeller.label(vectors, max_new_tokens=3)] == [1, 1]
    with pytest.raises(ModelError, match="128 numbers per token where d_model is 32"):
        capture(model, torch.tensor([[1, 2]]), [1])


def test_a_model_that_is_not_deterministic_is_refused():
    network = tiny_network("llama")
    noise = torch.Generator().manual_seed(0)
    network.model.norm.register_forward_hook(
        lambda _module, _inputs, out: out + torch.randn(out.shape, generator=noise)
    )
    model = FrozenModel(network, golden_tokenizer(), "hashing")
    with pytest.raises(ModelError, match="other outputs for the same tokens each time"):
        check_model(model)
