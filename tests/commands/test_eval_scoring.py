from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from killed_eval import check_kill
from selfie_adapters.cli import main
from selfie_adapters.config.evaluation.scoring import ScoringSettings
from selfie_adapters.config.settings import read_config
from selfie_adapters.evaluation.baselines import RidgeProbe
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.model import load_model
from tiny import SMALL_SCORING
from tiny_sae import tiny_sae

ROOT = Path(__file__).parents[2]
LABELS = {"3": "owls", "9": "tea", "17": "kings", "20": "rain"}


@pytest.fixture
def config(tmp_path, golden_dir):
    """A settings file for the golden model; keys given are changed."""
    sae = tiny_sae("jumprelu", "blocks.1.hook_resid_post", d_in=48)
    sae.save_model(tmp_path / "sae")
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))

    def write(**changes):
        settings = {
            "model": str(golden_dir / "model"),
            "dtype": "float32",
            "sae": str(tmp_path / "sae"),
            "adapter": str(golden_dir / "adapters/scalar_affine_norm.safetensors"),
            "labels_file": str(tmp_path / "labels.json"),
            "scales": [1.0, 2.0],
            "untrained_scales": [1.0, 3.0],
            **SMALL_SCORING,
        }
        path = tmp_path / "scoring.yaml"
        path.write_text(yaml.safe_dump(settings | changes))
        return str(path)

    return write


def evaluate(config, out):
    with pytest.raises(SystemExit) as ended:
        main(["eval", "scoring", "--config", config, "--out", str(out)])
    if ended.value.code:
        raise ended.value
    return json.loads((out / "results.json").read_text())


def test_all_conditions_stand_beside_the_trained_adapter(config, tmp_path, capsys):
    found = evaluate(config(), tmp_path / "out")
    conditions = found["conditions"]
    written = {"trained", "shuffled", "untrained", "zero", "random"}
    words = {"lens_words", "cosine_words"}
    assert set(conditions) == {*written, *words, "same_start", "training"}
    # All labels are of evaluated latents, so there is nothing to fit a probe on.
    assert list(found["not_measured"]) == ["ridge words"]
    for of in conditions.values():
        assert of["counts"]["conversations"] == 4 * 2 * 2
        assert 0 <= of["published"]["best_of_n"]["low"] <= of["published"]["best_of_n"]["high"] <= 1
        assert [at["threshold"] for at in of["content"]["thresholds"]] == [0.0, 0.5]
    assert list(conditions["untrained"]["content"]["by_scale"]) == ["1", "3"]
    assert found["protocol"] == "generation scoring"
    assert found["sae"] == {"kind": "jumprelu", "d_sae": 40, "layer": 1, "model": "tiny"}
    assert found["latents"] == [3, 9, 17, 20]
    weights = {"model_weights", "chat_weights"}
    assert set(found["inputs"]) == {"adapter", "labels_file", "sae", "negatives", *weights}
    assert {"torch", "transformers", "sae-lens"} <= set(found["versions"])
    shown = " ".join(capsys.readouterr().out.split())
    for word in (
        "published",
        "another's",
        "untrained",
        "zero vector",
        "lens words",
        "cosine words",
        "same start",
        "not measured: ridge words (no labels to fit it on",
        "instrument",
        "results:",
    ):
        assert word in shown


def test_all_conditions_have_the_same_negatives_and_the_lens_is_one(config, golden_dir, tmp_path):
    """The lens words are those of the plain transformers model on the SAE's decoder rows."""
    found = evaluate(config(), tmp_path / "out")
    lines = (tmp_path / "out/rows.jsonl").read_text().splitlines()
    rows = {row.pop("key"): row for row in map(json.loads, lines)}
    of = [rows[f"negative:{i}"] for i in range(3)]
    assert found["negatives"]["nouns"] == [one["noun"] for one in of]
    sound = [one["conversation"]["content"] for one in of if "error" not in one["conversation"]]
    assert found["negatives"]["with_error"] == 3 - len(sound)
    rate = sum(value > 0 for one in sound for value in one) / (4 * len(sound))
    for condition in found["conditions"].values():
        at_0 = condition["content"]["thresholds"][0]
        assert at_0["false_positive_rate"]["mean"] == pytest.approx(rate)

    network = AutoModelForCausalLM.from_pretrained(golden_dir / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(golden_dir / "model")
    decoder = tiny_sae("jumprelu", "blocks.1.hook_resid_post", d_in=48).W_dec[[3, 9, 17, 20]]
    with torch.no_grad():
        logits = network.lm_head(network.model.norm(decoder))
    for latent, row in zip((3, 9, 17, 20), logits, strict=True):
        words = [tokenizer.decode([token]).strip() for token in row.argsort(descending=True)]
        expected = ", ".join(list(dict.fromkeys(filter(None, words)))[:3])
        labels = rows[f"lens_words:{latent}"]["labels"]
        assert labels[0]["text"] == expected
        assert [one["text"] for one in labels] == [expected] * 2  # as many as there are scales
    pairs = [one for one in found["comparisons"] if one["second"] == "lens_words"]
    assert {one["measure"] for one in pairs} == {"best_of_1", "balanced_accuracy", "auroc"}
    own, lens = (found["conditions"][name]["per_latent"] for name in ("trained", "lens_words"))
    by_latent = zip(own["best_of_1"], lens["best_of_1"], strict=True)
    expected = sum(a - b for a, b in by_latent) / 4
    (first,) = (one for one in pairs if one["measure"] == "best_of_1")
    assert (first["first"], first["difference"]["mean"]) == ("trained", pytest.approx(expected))
    assert first["p_holm"] >= first["p"]


def test_a_probe_is_fitted_on_latents_that_are_not_evaluated(config, golden_dir, tmp_path):
    """The probe's words from rows, labels and model, put together here."""
    rows = [{"index": i, "labels": [f"word {i}"], "split": "train"} for i in (0, 1, 3, 5, 8, 13)]
    facts = {"dataset_name": "a", "layer": 1, "source": "s", "vector_type": "sae_decoder"}
    file = tmp_path / "training.json"
    later = [{"index": i, "labels": ["x"], "split": "val"} for i in (21, 22)]
    beyond = [{"index": 77, "labels": ["no such latent"], "split": "train"}]
    file.write_text(json.dumps([{"metadata": facts, "vectors": [*rows, *later, *beyond]}]))
    settings = config(conditions=["trained", "ridge_words"], training_labels=str(file))
    found = evaluate(settings, tmp_path / "out")
    assert "training_labels" in found["inputs"]
    assert found["not_measured"] == {}
    model = load_model(golden_dir / "model", "float32")
    decoder = tiny_sae("jumprelu", "blocks.1.hook_resid_post", d_in=48).W_dec.detach()
    used = [0, 1, 5, 8, 13]  # 3 is evaluated
    probe = RidgeProbe(model, decoder[used], [f"word {i}" for i in used])
    ids = probe.tokens(decoder[[3, 9, 17, 20]], 12).tolist()
    lines = (tmp_path / "out/rows.jsonl").read_text().splitlines()
    by_key = {row.pop("key"): row for row in map(json.loads, lines)}
    for latent, tokens in zip((3, 9, 17, 20), ids, strict=True):
        words = [model.tokenizer.decode([token]).strip() for token in tokens]
        expected = ", ".join(list(dict.fromkeys(filter(None, words)))[:3])
        assert {one["text"] for one in by_key[f"ridge_words:{latent}"]["labels"]} == {expected}


def test_labels_that_begin_alike_are_measured_where_there_are_some(config, tmp_path):
    (tmp_path / "labels.json").write_text(
        json.dumps({"3": "owls", "9": "??", "17": "kings, crown", "30": "kind of", "31": "king"})
    )
    settings = config(conditions=["same_start", "training"], latents=[3, 9, 17])
    found = evaluate(settings, tmp_path / "out")
    lines = (tmp_path / "out/rows.jsonl").read_text().splitlines()
    rows = {row["key"]: row for row in map(json.loads, lines)}
    assert rows["same_start:9"]["labels"] == []
    # Of the file; "king" is a word of the latent's own label.
    assert [one["text"] for one in rows["same_start:17"]["labels"]] == ["kind of"] * 2
    concepts = [one["text"] for one in rows["same_start:3"]["labels"]]
    assert len({*concepts}) == 2  # as many as there are scales
    assert all(one.startswith("ow") for one in concepts)
    same = found["conditions"]["same_start"]
    assert same["counts"]["latents"] == 2
    assert same["content"]["thresholds"][0]["best_of_1"]["n"] == 2
    assert same["per_latent"]["best_of_1"][1] is None
    pairs = [one for one in found["comparisons"] if one["measure"] == "best_of_1"]
    assert [(one["first"], one["second"]) for one in pairs] == [("same_start", "training")]
    assert pairs[0]["difference"]["n"] == 2


def test_results_of_an_earlier_version_are_completed(config, tmp_path):
    """Its folder has no words by cosine; the rows that are there are kept."""
    settings = config(conditions=None)
    whole = evaluate(settings, tmp_path / "out")
    file = tmp_path / "out/rows.jsonl"
    lines = [
        one for one in file.read_text().splitlines(keepends=True) if "cosine_words:" not in one
    ]
    record = json.loads((tmp_path / "out/config.json").read_text())
    del record["settings"]["training_labels"]
    (tmp_path / "out/config.json").write_text(json.dumps(record))
    file.write_text("".join(one for one in lines if "cosine_words:" not in one))
    assert evaluate(settings, tmp_path / "out")["conditions"] == whole["conditions"]


def test_a_folder_with_negatives_of_each_condition_is_refused(config, tmp_path, capsys):
    settings = config(conditions=["training"])
    evaluate(settings, tmp_path / "out")
    file = tmp_path / "out/config.json"
    record = json.loads(file.read_text())
    record["settings"]["foils"] = 5
    del record["settings"]["negatives"], record["inputs"]["negatives"]
    file.write_text(json.dumps(record))
    with pytest.raises(SystemExit, match="1"):
        evaluate(settings, tmp_path / "out")
    error = " ".join(capsys.readouterr().err.split())
    assert "holds an evaluation of an earlier version: its negatives are conversations" in error
    assert error.endswith("Give another --out.")


def test_another_seed_of_the_negatives_is_noticed_and_none_are_possible(config, tmp_path, capsys):
    found = evaluate(config(conditions=["training"], negatives=0), tmp_path / "none")
    assert found["negatives"] == {"nouns": [], "with_error": 0}
    assert "negatives" not in found["inputs"]
    assert found["conditions"]["training"]["content"]["auroc"] is None
    capsys.readouterr()
    with pytest.raises(SystemExit, match="1"):
        evaluate(config(conditions=["training"], negatives=2), tmp_path / "none")
    assert "negatives 0; now it is 2" in " ".join(capsys.readouterr().err.split())


def test_stopped_anywhere_it_ends_with_the_same_bytes(config, tmp_path, monkeypatch):
    settings = config(conditions=["trained", "training"])
    evaluate(settings, tmp_path / "whole")
    add = EvaluationFolder.add
    for stop_at in (1, 5):

        def stopping(self, key, row, stop_at=stop_at):
            if len(self.rows) == stop_at:
                raise KeyboardInterrupt
            add(self, key, row)

        out = tmp_path / f"stopped{stop_at}"
        monkeypatch.setattr(EvaluationFolder, "add", stopping)
        with pytest.raises(SystemExit, match="130"):
            evaluate(settings, out)
        monkeypatch.setattr(EvaluationFolder, "add", add)
        assert not (out / "results.json").exists()
        evaluate(settings, out)
        for name in ("results.json", "rows.jsonl"):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_other_weights_of_the_writer_are_noticed(config, golden_dir, tmp_path, capsys):
    writer = shutil.copytree(golden_dir / "model", tmp_path / "writer")
    settings = config(writer={"model": str(writer)}, conditions=["training"])
    evaluate(settings, tmp_path / "out")
    file = writer / "model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[5] += 1e-3  # one weight
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(SystemExit, match="1"):
        evaluate(settings, tmp_path / "out")
    assert "different chat weights" in " ".join(capsys.readouterr().err.split())


def test_killed_by_force_it_goes_on_to_the_same_results(config, tmp_path):
    settings = Path(config(latents_at_once=1, scales=[1.0], untrained_scales=[1.0]))
    check_kill(tmp_path, "scoring", settings, ("results.json", "rows.jsonl"))


def test_labels_written_first_are_scored_later(config, tmp_path):
    only = config(evaluation_mode="label_generation_only", latents=[3, 9], labels_file=None)
    evaluate(only, tmp_path / "labels")
    assert not (tmp_path / "labels/answers").exists()
    labels = tmp_path / "labels/trained_labels.jsonl"
    rows = [json.loads(line) for line in labels.read_text().splitlines()]
    assert {row["index"] for row in rows} <= {3, 9}
    later = config(evaluation_mode="label_dataset", labels_file=str(labels), adapter=None)
    found = evaluate(later, tmp_path / "scored")
    assert list(found["conditions"]) == ["training"]
    texts = {row["description"] for row in rows}
    scored = (tmp_path / "scored/rows.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, scored) if "labels" in row]
    assert {label["text"] for row in rows for label in row["labels"]} <= texts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": None, "labels_file": None}, "give latents or labels_file"),
        ({"latents": [3, 40]}, "latent 40 has no label"),
        ({"latents": [3, 40], "labels_file": None}, "latent 40 is out of range: the SAE has 40"),
        ({"conditions": ["training"], "labels_file": None, "latents": [3]}, "without labels_file"),
        ({"conditions": ["trained"], "adapter": None}, "without adapter"),
        (
            {"conditions": ["lens_words"], "evaluation_mode": "label_dataset"},
            "lens_words is not possible with evaluation_mode label_dataset. Possible: training",
        ),
        ({"conditions": ["ridge_words"]}, "ridge_words is not possible: no labels to fit it on"),
        (
            {"conditions": ["same_start"], "labels_file": None, "latents": [3]},
            "without labels_file",
        ),
        ({"negatives": 9000}, "negatives: 9000 nouns that share no word with a label"),
        ({"conditions": ["trainde"]}, "conditions"),
        ({"sae": "/nowhere"}, "/nowhere: no SAELens folder"),
        ({"scale": [1]}, 'Did you mean "scales"'),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_what_is_wrong_is_one_line(config, tmp_path, capsys, changes, message):
    with pytest.raises(SystemExit, match="1"):
        evaluate(config(**changes), tmp_path / "out")
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_an_sae_of_another_width_is_refused(config, tmp_path, capsys):
    tiny_sae("standard", "blocks.1.hook_resid_post", d_in=12).save_model(tmp_path / "narrow")
    with pytest.raises(SystemExit, match="1"):
        evaluate(config(sae=str(tmp_path / "narrow")), tmp_path / "out")
    assert "reads vectors of width 12" in capsys.readouterr().err


def test_the_published_values_are_the_defaults_and_the_sample_file_is_sound():
    default = ScoringSettings(latents=[1])
    assert default.scales == [0.5, 0.8, 1.3, 2.1, 3.4, 5.5]
    assert (default.label_tokens, default.label_temperature, default.label_top_p) == (30, 0.7, 0.9)
    assert (default.conversations, default.conversation_tokens) == (10, 100)
    assert (default.temperature, default.top_p, default.thresholds) == (0.7, 0.9, [0.0])
    sample = read_config(ROOT / "evaluation/configs/scoring.yaml", ScoringSettings)
    assert set(sample.wanted()) == {
        "trained",
        "zero",
        "random",
        "untrained",
        "lens_words",
        "cosine_words",
        "ridge_words",
        "same_start",
        "training",
    }
