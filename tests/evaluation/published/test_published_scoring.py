"""Published scoring configurations through the command line, against plain loops."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfie_adapters.cli import main
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.published.scoring import read_scoring_config
from selfie_adapters.evaluation.scoring.conversations import parse_conversation
from tiny_sae import tiny_sae

D, D_SAE, LAYER = 48, 40, 1
RESERVED = "<|reserved_special_token_0|>"
LLAMA = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
    f'What is the meaning of "{RESERVED}"?<|eot_id|>'
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
    f'The meaning of "{RESERVED}" is "'
)
SHORT = f'<|begin_of_text|>{RESERVED} means "'
ITEMS = [
    {"index": 20, "labels": ["rain"], "split": "val"},
    {"index": 3, "labels": ["owls", "birds", "owls"], "split": "val"},
    {"index": 9, "labels": ["tea"], "split": "train"},
    {"index": 17, "labels": ["kings"], "split": "val"},
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An SAE, a training file of two sections, and their vectors in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    tiny_sae("jumprelu", f"blocks.{LAYER}.hook_resid_post", d_in=D).save_model(tmp_path / "sae")
    (tmp_path / "volume").mkdir()
    drawn = torch.randn(D_SAE, D, generator=torch.Generator().manual_seed(5)) * 3
    torch.save(drawn, tmp_path / "volume/rows.pt")
    torch.save(drawn.flip(0), tmp_path / "volume/others.pt")
    metadata = {"layer": LAYER, "source": "s", "vector_type": "sae_decoder"}
    names = {"Some/Other": "others.pt", "Goodfire/Tiny": "rows.pt"}
    document = [
        {"metadata": {**metadata, "dataset_name": name, "filename": file}, "vectors": ITEMS}
        for name, file in names.items()
    ]
    (tmp_path / "master.json").write_text(json.dumps(document))
    return tmp_path


@pytest.fixture
def config(place, golden_dir):
    """A published configuration; keys given are changed, None takes one out."""

    def config(mode="label_dataset", model=None, reward=None, generator=None, **changes):
        values = {
            "evaluation_mode": mode,
            "run_id": "r1",
            "model_config": {
                "name": str(golden_dir / "model"),
                "sae_release": str(place / "sae"),
                "sae_id": "layer_1",
                "sae_layer_number": LAYER,
                "device": "cpu",
                "dtype": "float32",
            }
            | (model or {}),
            "reward_config": {
                "conversation_prompt_template": "Talk about _ and _ again.",
                "conversation_system_message": "You write.",
                "use_chat_template": True,
                "max_new_tokens": 8,
                "temperature": 0.7,
                "top_p": 0.9,
                "do_sample": True,
                "aggressive_memory_cleanup": True,
                "num_debug_samples": 4,
                "full_debug_mode": False,
            }
            | (reward or {}),
            "label_generator_config": {
                "num_soft_tokens": 1,
                "template": LLAMA,
                "reserved_token": RESERVED,
                "max_generation_length": 5,
                "which_vector": "decoder",
                "adapter_checkpoint_path": str(
                    golden_dir / "adapters/scalar_affine_norm.safetensors"
                ),
                "normalize_vectors": True,
                "temperature": 0.7,
                "top_p": 0.9,
                "do_sample": True,
                "repetition_penalty": 1.0,
                "strip_last_quote": True,
            }
            | (generator or {}),
            "master_json_path": "./master.json",
            "master_json_dataset_name": "Goodfire/Tiny",
            "master_json_layer": LAYER,
            "master_json_split": "val",
            "data_volume_path": "volume",
            "max_latents": None,
            "specific_latent_indices": None,
            "scale_values": [1.0, 2.0],
            "num_labels_per_scale": 1,
            "num_reward_samples": 3,
            "label_generation_batch_size": 32,
            "reward_evaluation_batch_size": 16,
            "checkpoint_every_n_latents": 100,
            "num_parallel_instances": 4,
            "output_volume_path": "/results",
        } | changes
        path = place / f"{mode}.json"
        path.write_text(json.dumps({k: v for k, v in values.items() if v != "absent"}))
        return str(path)

    return config


def selfie(*arguments):
    with contextlib.suppress(SystemExit):  # what it should have written is looked at
        main(["eval", *map(str, arguments)])


def evaluate(config, out):
    selfie("scoring", "--config", config, "--out", out)


def results(out):
    return json.loads((out / f"eval_results_layer_{LAYER}_r1.json").read_text())


@pytest.fixture(scope="module")
def plain(golden_dir):
    folder = golden_dir / "model"
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return network, AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def greedy(plain, template, soft, tokens):
    """What the model writes after `template` with `soft` at its placeholders, token by token."""
    network, tokenizer = plain
    ids = tokenizer(template, add_special_tokens=False).input_ids
    embeds = network.get_input_embeddings()(torch.tensor(ids)).clone()
    embeds[torch.tensor(ids) == tokenizer.convert_tokens_to_ids(RESERVED)] = soft
    written = []
    for _ in range(tokens):
        token = int(network(inputs_embeds=embeds.unsqueeze(0)).logits[0, -1].argmax())
        written.append(token)
        if token == tokenizer.convert_tokens_to_ids("<|eot_id|>"):
            break
        row = network.get_input_embeddings()(torch.tensor([token]))
        embeds = torch.cat([embeds, row])
    return tokenizer.decode(written, skip_special_tokens=True)


@torch.no_grad()
def activations(plain, text, latent):
    """A latent's activation at every token of a conversation, by SAELens' own encoder."""
    network, tokenizer = plain
    turns = [turn._asdict() for turn in parse_conversation(text)]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False)
    ids = tokenizer(rendered, add_special_tokens=False, return_tensors="pt").input_ids
    states = network(ids, output_hidden_states=True).hidden_states[LAYER + 1][0]
    sae = tiny_sae("jumprelu", f"blocks.{LAYER}.hook_resid_post", d_in=D)
    return sae.encode(states)[:, latent].tolist()


def check_samples(plain, latent, samples, count):
    assert [one["sample_index"] for one in samples] == list(range(count))
    right = 0
    for one in samples:
        if one["error"] is None:
            expected = activations(plain, one["generated_text"], latent)
            assert one["per_token_activations"] == pytest.approx(expected, abs=1e-4)
            assert one["num_tokens"] == len(expected)
            right += 1
        else:
            assert one["per_token_activations"] is None
    return right


def test_label_dataset_scores_each_label_of_the_file(config, tmp_path, plain, capsys):
    """data_volume_path is not read here, and there is no need of a generator."""
    file = config(label_generator_config="absent", data_volume_path="/sae-data", max_latents=2)
    evaluate(file, tmp_path / "out")
    found = results(tmp_path / "out")
    assert found["evaluation_mode"] == "label_dataset"
    assert found["shard_id"] == 0
    assert not any(key.startswith("master_json_") for key in found["config"])
    assert found["config"]["reward_config"]["conversation_system_message"] == "You write."
    # the first two of the split in file order; equal labels are one row with all their samples
    rows = found["evaluations"]
    assert [(row["latent_index"], row["label"]) for row in rows] == [
        (20, "rain"),
        (3, "owls"),
        (3, "birds"),
    ]
    assert (
        sum(
            check_samples(plain, r["latent_index"], r["reward_samples"], n)
            for r, n in zip(rows, (3, 6, 3), strict=True)
        )
        > 0
    )
    ours = json.loads((tmp_path / "out/results.json").read_text())
    assert list(ours["conditions"]) == ["training"]
    capsys.readouterr()
    selfie("published", tmp_path / "out/eval_results_layer_1_r1.json", "--json")
    (read,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    per_label = {3: [], 20: []}
    for row in rows:
        good = [s["per_token_activations"] for s in row["reward_samples"] if not s["error"]]
        hits = [any(a > 0 for a in one[1:]) for one in good]
        per_label[row["latent_index"]].append(sum(hits) / len(hits) if hits else 0.0)
    assert read["mean_max_hit_rate"] == pytest.approx(sum(map(max, per_label.values())) / 2)


def test_the_conversations_are_asked_for_as_configured(config, tmp_path, monkeypatch):
    from selfie_adapters.chat.in_process import InProcessChat

    asked = []
    answer = InProcessChat.answer

    def listening(self, requests, done=lambda _number, _text: None):
        asked.extend(requests)
        return answer(self, requests, done)

    monkeypatch.setattr(InProcessChat, "answer", listening)
    evaluate(config(specific_latent_indices=[9, 17], reward={"do_sample": False}), tmp_path / "out")
    assert [row["latent_index"] for row in results(tmp_path / "out")["evaluations"]] == [17]
    (turns,) = {request.messages for request in asked}
    assert [(turn.role, turn.content) for turn in turns] == [
        ("system", "You write."),
        ("user", "Talk about kings and kings again."),
    ]
    assert {(r.max_tokens, r.temperature, r.top_p, r.begun) for r in asked} == {(8, 0.0, 0.9, "")}
    assert len(asked) <= 3


def test_label_generator_writes_and_scores_labels(config, tmp_path, plain, capsys):
    file = config("label_generator", num_labels_per_scale=2, master_json_split="all")
    evaluate(file, tmp_path / "out")
    found = results(tmp_path / "out")
    assert [row["latent_index"] for row in found["evaluations"]] == [20, 3, 9, 17]
    right = 0
    for row in found["evaluations"]:
        assert [at["scale_value"] for at in row["scale_evaluations"]] == [1.0, 2.0]
        for at in row["scale_evaluations"]:
            assert [label["label_index"] for label in at["generated_labels"]] == [0, 1]
            for label in at["generated_labels"]:
                count = 3 if label["label"] else 0
                right += check_samples(plain, row["latent_index"], label["reward_samples"], count)
    assert right > 0
    name = "generated_labels_Tiny_layer1_shard000_r1.json"
    assert found["generated_labels_file"] == name
    labels = json.loads((tmp_path / "out" / name).read_text())
    assert len(labels["generated_labels"]) == 4 * 2 * 2
    assert "strip_last_quote" not in labels["metadata"]["label_generator_config"]
    # this project's own score and the one of the published file are one
    ours = json.loads((tmp_path / "out/results.json").read_text())["conditions"]
    assert set(ours) == {"trained", "shuffled"}
    capsys.readouterr()
    selfie("published", tmp_path / "out/eval_results_layer_1_r1.json", "--json")
    (read,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert read["mean_max_hit_rate"] == pytest.approx(
        ours["trained"]["published"]["best_of_n"]["mean"]
    )
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file()}
    evaluate(file, tmp_path / "out")
    for name, content in before.items():
        assert (tmp_path / "out" / name).read_bytes() == content, name


def expected_text(raw, last=True):
    cut = raw.rfind('"') if last else raw.find('"')
    return raw if cut < 0 else raw[:cut]


@pytest.mark.parametrize("adapter", ["scalar_affine_norm", "scalar_affine_raw", None])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_label_generation_only_needs_no_sae(
    adapter, normalize, last, config, tmp_path, plain, golden_dir
):
    """Greedy labels, as the qwen files ask for, equal those of a plain loop."""
    scales = [1.0] if adapter else [0.5, 4.0, 16.0]
    file = None if adapter is None else golden_dir / f"adapters/{adapter}.safetensors"
    generator = {
        "adapter_checkpoint_path": file and str(file),
        "normalize_vectors": normalize,
        "temperature": 0.0,
        "top_p": 1.0,
        "do_sample": False,
        "template": SHORT,
        "strip_last_quote": last,
    }
    model = {"sae_release": "no-such-release", "sae_id": "combined_val", "sae_layer_number": 1}
    reward = {"use_chat_template": False, "conversation_prompt_template": ""}
    evaluate(
        config(
            "label_generation_only",
            model,
            reward,
            generator,
            scale_values=scales,
            label_generation_batch_size=2,
        ),
        tmp_path / "out",
    )
    found = results(tmp_path / "out")
    assert "evaluations" not in found
    assert found["num_labels_generated"] == 3 * len(scales)
    labels = json.loads((tmp_path / "out" / found["generated_labels_file"]).read_text())
    about = labels["metadata"]
    assert (about["dataset_name"], about["layer"], about["split"]) == ("Goodfire/Tiny", 1, "val")
    rows = torch.load(tmp_path / "volume/rows.pt", weights_only=True)
    state = load_file(file) if file else None
    expected = []
    for latent in (20, 3, 17):
        x = rows[latent] / rows[latent].norm() if normalize else rows[latent]
        for scale in scales:
            soft = x * scale
            if state is not None:
                soft = state["log_scale"].exp() * soft + state["bias"]
            text = expected_text(greedy(plain, SHORT, soft, 5), last)
            expected.append(
                {"latent_index": latent, "label": text, "scale": scale, "label_index": 0}
            )
    assert labels["generated_labels"] == expected


@pytest.mark.parametrize(
    ("raw", "cuts"),
    [
        (' a "b" c', ("a", " a ", ' a "b')),
        ("no  quote ", ("no quote", "no  quote ", "no  quote ")),
        ('"', ("", "", "")),
    ],
)
def test_where_a_label_ends(raw, cuts):
    from selfie_adapters.evaluation.scoring.label_groups import LabelSampling

    kinds = ("trimmed", "first_quote", "last_quote")
    assert tuple(LabelSampling(cut=kind).text_of(raw) for kind in kinds) == cuts


def test_what_a_missing_key_means(config, tmp_path):
    """The tables of defaults of the published programs."""
    file = config(
        "label_generator",
        **dict.fromkeys(
            ("run_id", "scale_values", "num_reward_samples", "output_volume_path"), "absent"
        ),
    )
    values = json.loads((tmp_path / "label_generator.json").read_text())
    values["reward_config"] = {}
    values["label_generator_config"] = {"adapter_checkpoint_path": None}
    values["model_config"] = {"sae_release": str(tmp_path / "sae"), "sae_layer_number": 1}
    (tmp_path / "label_generator.json").write_text(json.dumps(values))
    settings = read_scoring_config(file).settings
    assert settings.model == "meta-llama/Meta-Llama-3.1-8B-Instruct"
    assert (settings.dtype, settings.device) == ("bfloat16", None)
    assert (settings.conversation_tokens, settings.temperature, settings.top_p) == (100, 0.7, 0.9)
    assert (settings.label_tokens, settings.label_temperature, settings.label_top_p) == (
        30,
        0.7,
        0.9,
    )
    assert (settings.conversations, settings.untrained_scales, settings.labels_per_scale) == (
        1,
        [1.0],
        1,
    )
    assert settings.conditions == ["untrained"]
    assert settings.untrained_scale_unit == "absolute"
    assert (settings.template, settings.placeholder) == (LLAMA, RESERVED)
    assert settings.label_cut == "last_quote"
    assert settings.normalize_vectors is True
    assert settings.sae == str(tmp_path / "sae")
    assert settings.vectors == "volume/rows.pt"


def test_release_and_id_name_an_sae_that_is_not_on_this_machine(config):
    file = config(model={"sae_release": "goodfire-llama-3.1-8b-instruct", "sae_id": "layer_19"})
    assert read_scoring_config(file).settings.sae == "goodfire-llama-3.1-8b-instruct:layer_19"


def test_data_volume_path_of_the_cloud_is_the_current_folder(config, place):
    file = config("label_generation_only", data_volume_path="absent")
    assert read_scoring_config(file).settings.vectors == "rows.pt"
    file = config("label_generation_only", data_volume_path=str(place / "volume"))
    assert read_scoring_config(file).settings.vectors == str(place / "volume/rows.pt")


def test_keys_can_be_changed_on_the_command_line(config):
    changed = ["model_config.device=cuda:1", "label_generator_config.do_sample=false"]
    settings = read_scoring_config(config("label_generator"), [*changed, "max_latents=1"]).settings
    assert (settings.device, settings.label_temperature, settings.latents) == ("cuda:1", 0.0, [20])
    with pytest.raises(ConfigError, match='Did you mean "reward_config.top_p"'):
        read_scoring_config(config(), ["reward_config.topp=1"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_latent": 3}, 'max_latent: unknown key. Did you mean "max_latents"'),
        (
            {"reward": {"do_samples": 1}},
            r'reward_config.do_samples: unknown key. Did you mean "do_sample"',
        ),
        ({"generator": {"num_soft_tokens": 2}}, "num_soft_tokens: one soft token"),
        ({"generator": {"which_vector": "both"}}, "which_vector"),
        ({"reward": {"use_chat_template": False}}, "use_chat_template: false is not possible"),
        (
            {"mode": "label_generator", "label_generator_config": None},
            "needs label_generator_config",
        ),
        ({"reward_config": "absent"}, "reward_config: missing"),
        ({"master_json_path": "absent"}, "master_json_path: missing"),
        ({"run_id": "../x"}, "run_id: it goes into file names"),
        ({"num_reward_samples": 0}, "num_reward_samples"),
        ({"scale_values": []}, "scale_values"),
        ({"master_json_dataset_name": "Tiny"}, r"Tiny with master_json_layer 1: no such section"),
        ({"master_json_layer": 2}, r"It has Some/Other \(layer 1\), Goodfire/Tiny \(layer 1\)"),
        ({"master_json_split": "test"}, "no latent of the split test"),
        ({"specific_latent_indices": [9]}, "specific_latent_indices"),
        ({"model": {"dtype": "float8"}}, "model_config.dtype"),
    ],
)
def test_what_cannot_be_is_refused(config, changes, message):
    with pytest.raises((ConfigError, DataError), match=message):
        read_scoring_config(config(**changes))


def test_an_sae_of_another_layer_is_refused(config, tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        main(["eval", "scoring", "--config", config(model={"sae_layer_number": 2}), "--out", "out"])
    assert "an SAE of layer 1; the settings state layer 2" in capsys.readouterr().err
    assert not (tmp_path / "out/results.json").exists()


def test_this_projects_own_settings_write_labels_without_an_sae(place, golden_dir, plain):
    """The same settings in the project's own form: a vector file in place of the SAE."""
    adapter = golden_dir / "adapters/scalar_affine_norm.safetensors"
    settings = {
        "evaluation_mode": "label_generation_only",
        "model": str(golden_dir / "model"),
        "dtype": "float32",
        "device": "cpu",
        "sae": "no/such:sae",
        "vectors": "volume/rows.pt",
        "latents": [17],
        "adapter": str(adapter),
        "conditions": ["trained"],
        "scales": [2.0],
        "label_tokens": 4,
        "label_temperature": 0,
        "template": SHORT,
        "placeholder": RESERVED,
    }
    (place / "own.yaml").write_text(json.dumps(settings))
    evaluate(str(place / "own.yaml"), place / "own")
    (row,) = map(json.loads, (place / "own/rows.jsonl").read_text().splitlines())
    rows, state = torch.load("volume/rows.pt", weights_only=True), load_file(adapter)
    soft = state["log_scale"].exp() * 2 * rows[17] / rows[17].norm() + state["bias"]
    text = expected_text(greedy(plain, SHORT, soft, 4), last=False)
    assert row["labels"] == [{"text": " ".join(text.split()), "scale": 2.0}]
    assert math.isfinite(float(state["log_scale"]))
