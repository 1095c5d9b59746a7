"""The language model inside a multimodal one; models that cannot continue text are refused."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForImageTextToText, BertConfig, BertForMaskedLM, T5Config
from transformers import T5ForConditionalGeneration as T5

from selfie_adapters import Labeller, SoftPrompt, create_adapter, label_losses
from selfie_adapters.errors import ModelError
from selfie_adapters.model import load_model
from selfie_adapters.model.quiet import quiet_loading
from tiny import golden_tokenizer
from tiny_folders import MULTIMODAL, change_weights, save_multimodal

_IDS = torch.tensor([[256, 97, 98]])
_HOLDER = "<|reserved_special_token_0|>"
_PROMPT = SoftPrompt(f'<|begin_of_text|>What is "{_HOLDER}"? It is "', _HOLDER, "<|eot_id|>")


@pytest.mark.parametrize("kind", MULTIMODAL)
def test_the_language_model_of_a_multimodal_one_is_used(kind, tmp_path):
    folder = save_multimodal(tmp_path / kind, kind)
    with quiet_loading():
        whole = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager")
    expected = whole(input_ids=_IDS).logits
    model = load_model(folder, dtype="float32", device_map="cpu")
    assert (model.n_layers, model.d_model, model.vocab_size) == (4, 32, 261)
    torch.testing.assert_close(model.network(input_ids=_IDS).logits, expected)
    names = [name for name, _ in model.network.named_parameters()]
    assert not any("vision" in name or "visual" in name for name in names), "towers take memory"
    assert model.embedding(_IDS).shape == (1, 3, 32)


@pytest.mark.parametrize("kind", MULTIMODAL)
def test_multimodal_models_train_and_label(kind, tmp_path):
    model = load_model(save_multimodal(tmp_path / kind, kind), dtype="float32", device_map="cpu")
    adapter = create_adapter("scalar_affine", 32, init_scale=2.0)
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    label_losses(model, _PROMPT, adapter, vectors, ["cat", "a dog"]).mean().backward()
    assert adapter.bias.grad.abs().sum() > 0
    labels = Labeller(model, adapter, _PROMPT).label(vectors, max_new_tokens=3)
    assert [len(found) for found in labels] == [1, 1]


def test_weights_missing_inside_a_multimodal_model_are_refused(tmp_path):
    folder = save_multimodal(tmp_path / "m", "mistral3")
    change_weights(folder, lambda w: {k: v for k, v in w.items() if "layers.2.mlp" not in k})
    with pytest.raises(ModelError, match=r"3 weights are missing.*mlp"):
        load_model(folder)


_SMALL = {"vocab_size": 261, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (
            lambda: BertForMaskedLM(BertConfig(**_SMALL, intermediate_size=32)),
            "bert is an encoder .*cannot continue text",
        ),
        (
            lambda: T5(T5Config(vocab_size=261, d_model=32, d_ff=32, num_layers=2, num_heads=2)),
            "t5 is an encoder-decoder model",
        ),
    ],
)
def test_models_that_do_not_continue_text_are_refused(network, reason, tmp_path):
    with quiet_loading():
        network().save_pretrained(tmp_path)
    golden_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=reason) as refused:
        load_model(tmp_path)
    assert "login" not in str(refused.value)
