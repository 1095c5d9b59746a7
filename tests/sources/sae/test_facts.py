from __future__ import annotations

import json

import pytest

from selfie_adapters.errors import DataError
from selfie_adapters.sources.sae.facts import SaeFacts, layer_in, read_facts, with_guesses
from selfie_adapters.sources.sae.layouts import LAYOUTS

PLAIN = {
    "d_in": 8,
    "d_sae": 12,
    "hook_name": "blocks.2.hook_resid_post",
    "model_name": "m",
    "normalize_activations": "none",
    "dataset_average_activation_norm": {"in": 1.0},
    "metadata": {"hook_name": "blocks.3.hook_resid_post", "model_name": "x"},
}


@pytest.fixture
def facts(tmp_path):
    def facts(config, name="cfg.json", prefix=b"") -> SaeFacts:
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / name).write_bytes(prefix + text.encode())
        return read_facts(tmp_path / name)

    return facts


def test_a_plain_configuration(facts):
    found = facts(PLAIN)
    assert (found.d_in, found.d_sae, found.layer, found.model) == (8, 12, 2, "m")
    assert found.own_factor == 8**0.5
    assert facts(PLAIN, prefix=b"\xef\xbb\xbf") == found
    assert facts(PLAIN, "conf.yaml") == found
    assert facts(PLAIN, "conf.yaml", b"\xef\xbb\xbf") == found


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("d_in", 8.0, "an integer of at least 1, found 8.0"),
        ("d_in", "", "found text ''"),
        ("d_in", "0x10", "found text '0x10'"),
        ("d_in", {}, "found a mapping"),
        ("d_in", True, "found a flag True"),
        ("d_in", 0, "found 0"),
        ("d_in", -8, "found -8"),
        ("d_in", 2**31, "found 2147483648"),
        ("d_sae", [12], "found a list"),
        ("d_sae", -1, "at least 0, found -1"),
        ("d_sae", {"trainer": {}}, "found a mapping"),
        ("hook_name", 1.5, "text, found 1.5"),
        ("hook_name", -0.0, "text, found -0.0"),
        ("hook_name", 0, "text, found 0"),
        ("hook_name", False, "text, found a flag False"),
        ("hook_name", " ", "text, found text ' '"),
        ("model_name", ["m"], "text, found a list"),
        ("model_name", {}, "text, found a mapping"),
        ("model_name", 12, "text, found 12"),
        ("model_name", False, "text, found a flag False"),
        ("normalize_activations", [1], "true, false or text, found a list"),
        ("dataset_average_activation_norm", "12.5", "a mapping with the key in, found text '12.5'"),
        ("dataset_average_activation_norm", 12.5, "a mapping with the key in, found 12.5"),
    ],
)
def test_a_value_of_the_wrong_type_names_its_key(facts, key, value, expected):
    with pytest.raises(DataError) as raised:
        facts({**PLAIN, key: value})
    assert f"cfg.json: {key} must be " in str(raised.value)
    assert expected in str(raised.value)


@pytest.mark.parametrize("norm", [-12.5, 0, "12.5", float("nan"), float("inf"), 10**400, [1], True])
def test_a_norm_that_is_none_never_reaches_the_rows(facts, norm):
    with pytest.raises(
        DataError, match=r"dataset_average_activation_norm\.in must be|out of range"
    ):
        facts({**PLAIN, "dataset_average_activation_norm": {"in": norm}})


@pytest.mark.parametrize("factor", [-2, 0, "2", 1e308, 1e9, float("inf"), []])
def test_a_ratio_that_is_none_is_refused(facts, factor):
    with pytest.raises(DataError, match="expansion_factor must be"):
        facts({"d_in": 8, "num_latents": 0, "expansion_factor": factor})


def test_null_is_absence_at_every_depth(facts):
    nothing = dict.fromkeys(PLAIN)
    assert facts(nothing) == SaeFacts()
    assert facts({**nothing, "metadata": PLAIN["metadata"]}).layer == 3
    assert facts({"metadata": None, "trainer": [], "d_in": 8}).d_in == 8
    with pytest.raises(DataError, match="hook_name must be text, found a flag"):
        facts({"metadata": {"hook_name": False}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'d_in': 48}", "not JSON"),  # as Python prints it
        ("[1]", "a mapping with keys, found a list"),
        ("null", "found nothing"),
        ("", "empty"),
        ("{" * 100_000, "not JSON|nested"),
        ('{"d_in": 1' + "0" * 5000 + "}", "out of range|d_in must be"),
    ],
)
def test_files_that_are_no_configuration(facts, text, message):
    with pytest.raises(DataError, match=message) as raised:
        facts(text)
    assert "cfg.json" in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("config", "hook", "layer"),
    [
        ({"hf_hook_point_in": "model.layers.12.output"}, "blocks.12.hook_resid_post", 12),
        ({"hf_hook_point_in": "model.layers.12.input"}, "blocks.12.hook_resid_pre", 11),
        ({"hf_hook_point_in": "model.layers.5.self_attn.o_proj.input"}, "blocks.5.attn.hook_z", 5),
        (
            {"hf_hook_point_in": "model.layers.5.post_attention_layernorm.output"},
            "blocks.5.hook_attn_out",
            5,
        ),
        (
            {"hf_hook_point_in": "model.layers.5.post_feedforward_layernorm.output"},
            "blocks.5.hook_mlp_out",
            5,
        ),
        (
            {"hf_hook_point_in": "model.language_model.layers.7.mlp.output"},
            "blocks.7.hook_mlp_out",
            7,
        ),
        (
            {
                "hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output",
                "hf_hook_point_out": "model.layers.3.post_feedforward_layernorm.output",
            },
            "blocks.3.hook_mlp_out",
            3,
        ),
        ({"hf_hook_point_in": "model.layers.9.router"}, "model.layers.9.router", 9),
        ({"layer": 4}, "blocks.4.hook_resid_post", 4),
        ({"layer": 0, "submodule_name": "mlp_out_layer_0"}, "blocks.0.hook_mlp_out", 0),
        ({"trainer": {"layer": 6, "submodule_name": "attention"}}, "blocks.6.hook_attn_out", 6),
    ],
)
def test_the_site_follows_the_configuration(facts, config, hook, layer):
    found = facts(config)
    assert (found.hook_name, found.layer) == (hook, layer)


@pytest.mark.parametrize("layer", ["12", 1.0, True, -1, [3], "NaN"])
def test_a_layer_that_is_none_is_refused(facts, layer):
    with pytest.raises(DataError, match="layer must be an integer"):
        facts({"trainer": {"layer": layer}})


@pytest.mark.parametrize(
    ("names", "layer"),
    [
        (["average_l0_71"], None),
        (["width_16k_l0_medium"], None),
        (["L0=50", "l0-12"], None),
        (["average_l0_71", "width_16k", "layer_20"], 20),
        (["layer_12_width_16k_l0_medium"], 12),
        (["l0r_8x"], 0),
        (["l19r_8x"], 19),
        (["llama3.1-8b/19-llamascope-res-32k"], 19),
        (["layers.10.mlp"], 10),
        (["blocks.8.hook_resid_pre"], 8),
        (["layer_99999999"], None),
    ],
)
def test_the_layer_in_names(names, layer):
    assert layer_in(names) == layer


def test_a_layer_that_is_known_completes_the_site():
    guessed = with_guesses(SaeFacts(), LAYOUTS["gemma_2"], ["gemma-scope-2b-pt-res"], 20)
    assert guessed.hook_name == "blocks.20.hook_resid_post"
    unknown = with_guesses(SaeFacts(), LAYOUTS["gemma_3"], ["layer_12_width_16k_l0_medium"])
    assert unknown.hook_name is None  # residual, attention or MLP: nothing says it


def test_a_layer_of_five_thousand_digits_is_no_layer(facts):
    assert facts(PLAIN | {"hook_name": f"blocks.{'9' * 5000}.hook_resid_post"}).layer is None
