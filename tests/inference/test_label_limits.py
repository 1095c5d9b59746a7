"""Labels, prompts and texts that a model cannot take are refused before the first step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from selfie_adapters import Labeller, SoftPrompt, create_adapter, label_losses, load_model
from selfie_adapters.errors import ConfigError, DataError, PromptError
from selfie_adapters.inference.label_scores import score_candidates
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.limits import learned_positions
from selfie_adapters.reading.plan import plan_reading
from selfie_adapters.sources.topics.reading import topic_vectors
from tiny import FAMILIES, golden_tokenizer, tiny_network
from tiny_folders import save_causal

HOLDER, END = "<|reserved_special_token_0|>", "<|eot_id|>"
PROMPT = SoftPrompt(f'<|begin_of_text|>"{HOLDER}" is "', HOLDER, END)
LEARNED = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "opt": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64}
    | {"word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64}
    | {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64},
}


@pytest.fixture(params=LEARNED)
def model(request, tmp_path):
    folder = save_causal(tmp_path / "m", request.param, vocab_size=261, **LEARNED[request.param])
    return load_model(folder, dtype="float32", device_map="cpu")


def _losses(model, labels, prompt=PROMPT):
    adapter = create_adapter("scalar_affine", 32)
    return label_losses(model, prompt, adapter, torch.randn(len(labels), 32), labels)


def test_a_label_may_reach_the_last_learned_position_and_no_further(model):
    room = 64 - len(PROMPT.bind(model.tokenizer).ids)
    fits = "a" * (room - 1)  # its closing quote is the last input
    assert _losses(model, ["cat", fits]).isfinite().all()
    message = r"label 1 \('aaa.*takes 65 positions.*has 64 learned positions"
    with pytest.raises(DataError, match=message):
        _losses(model, ["cat", fits + "a"])
    bound = PROMPT.bind(model.tokenizer)
    assert score_candidates(model, bound, torch.randn(1, 32), ["a", fits]).tokens[1] == room + 1
    with pytest.raises(DataError, match=message):
        score_candidates(model, bound, torch.randn(1, 32), ["cat", fits + "a"])


def test_answers_prompts_and_topics_end_at_the_last_learned_position(model):
    labeller = Labeller(model, create_adapter("scalar_affine", 32), PROMPT)
    room = 64 - len(labeller.prompt.ids) + 1
    labeller.label(torch.randn(1, 32), max_new_tokens=room)
    with pytest.raises(ConfigError, match=rf"max_new_tokens is {room + 1}.*has room for {room}"):
        labeller.label(torch.randn(1, 32), max_new_tokens=room + 1)
    long = replace(PROMPT, template=PROMPT.template + "x" * 64)
    with pytest.raises(PromptError, match="64 learned positions. Shorten the template"):
        _losses(model, ["cat"], long)
    with pytest.raises(PromptError, match="reads at most 64"):
        plan_reading(model, "x" * 70, chat="none")
    with pytest.raises(PromptError, match=r"topic 1 has 7\d tokens.*64 learned positions"):
        topic_vectors(model, ["a", "x" * 70], [0])


@pytest.mark.parametrize("family", FAMILIES)
def test_computed_positions_have_no_end(family):
    model = FrozenModel(tiny_network(family), golden_tokenizer(), family)
    assert learned_positions(model) is None


@pytest.fixture
def narrow():
    """A model whose embedding lacks the last special tokens of its tokenizer (257 rows)."""
    network = tiny_network("llama")
    network.resize_token_embeddings(257)
    return FrozenModel(network, golden_tokenizer(), "narrow")


def test_tokens_beyond_the_embedding_are_refused_by_name(narrow):
    with pytest.raises(PromptError, match=r"the prompt holds the token.*260.*has 257 rows"):
        _losses(narrow, ["cat"])
    with pytest.raises(PromptError, match="has 257 rows"):
        Labeller(narrow, create_adapter("scalar_affine", 32), PROMPT)
    with pytest.raises(PromptError, match="has 257 rows"):
        plan_reading(narrow, f"a {END}", chat="none")
    with pytest.raises(PromptError, match=r'topic 1 holds the token "<\|eot_id\|>" \(id 259\)'):
        topic_vectors(narrow, ["a", f"b {END}"], [0])


def test_a_label_with_a_token_beyond_the_embedding_is_refused():
    tokenizer = golden_tokenizer()
    tokenizer.add_tokens(["owl"])
    model = FrozenModel(tiny_network("llama"), tokenizer, "m")
    with pytest.raises(DataError, match=r"label 1 \('an owl'\) holds the token \"owl\" \(id 261\)"):
        _losses(model, ["cat", "an owl"])


def test_a_label_with_the_placeholder_in_it_is_refused():
    """An ordinary character as placeholder is not split like a special token."""
    model = FrozenModel(tiny_network("llama"), golden_tokenizer(), "m")
    prompt = SoftPrompt('<|begin_of_text|>"~" is "', "~", END)
    assert _losses(model, ["cat"], prompt).isfinite().all()
    with pytest.raises(DataError, match=r"label 1 \('a ~ b'\) holds the placeholder \"~\""):
        _losses(model, ["cat", "a ~ b"], prompt)
    assert _losses(model, [f"a {HOLDER}"]).isfinite().all()  # split: it poses as no placeholder
