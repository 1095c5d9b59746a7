from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import small_saes
from hub_server import hub_server
from selfie_adapters.adapters import load_adapter
from selfie_adapters.commands.label import label
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import (
    AdapterError,
    ConfigError,
    DataError,
    LabellingError,
    MissingExtraError,
    MissingFileError,
    ModelError,
)
from selfie_adapters.files import read_json
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.labelling import Confidence, Labeller
from selfie_adapters.labelling.worker import ShardWorker
from selfie_adapters.model import load_model
from selfie_adapters.sources.sae.registry import find_sae

SAMPLE = Path(__file__).parents[2] / "data/sample/sample.json"


@pytest.fixture
def run(golden_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # tables in full

    def run(vectors=SAMPLE, out="labels", **options):
        settings = {
            "adapter": str(golden_dir / "adapters/scalar_affine_norm.safetensors"),
            "model": str(golden_dir / "model"),
            "max_new_tokens": 8,
            "dtype": "float32",
            **options,
        }
        label(str(vectors), out=str(tmp_path / out), **settings)
        shards = sorted((tmp_path / out).glob("labels-*.jsonl"))
        return [row for shard in shards for row in read_jsonl(shard)]

    return run


def test_rows_say_what_was_labelled_and_how(run, capsys):
    rows = run(split="val", scales=["0.5,2"])
    items = load_dataset(SAMPLE).labelled("val")
    assert len(rows) == 2 * len(items)
    ids = [section.id for section in load_dataset(SAMPLE).sections]
    assert [(row["dataset"], row["index"]) for row in rows[::2]] == [
        (ids[item.section], item.row) for item in items
    ]
    assert [row["scale"] for row in rows[:4]] == [0.5, 2.0, 0.5, 2.0]
    assert all(row["log_prob"] < 0 < row["tokens"] <= 8 for row in rows)
    for row in rows:
        gain = (row["log_prob"] - row["zero_log_prob"]) / row["tokens"]
        assert row["gain"] == pytest.approx(gain, abs=1e-3)
    shown = capsys.readouterr().out
    assert "12 vectors labelled" in shown
    for control in ("zero", "random", "shuffled"):
        assert control in shown


def test_labels_are_shown_before_the_controls_and_a_run_stopped_between_measures_them(
    run, tmp_path, capsys, monkeypatch
):
    measure = ShardWorker.controls

    def stopped(_worker):
        raise KeyboardInterrupt

    monkeypatch.setattr(ShardWorker, "controls", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(split="val")
    shown = capsys.readouterr().out
    assert "Labels" in shown
    assert "Controls" not in shown
    assert len(read_jsonl(tmp_path / "labels/labels-00000.jsonl")) == 12
    assert not (tmp_path / "labels/controls.json").exists()

    monkeypatch.setattr(ShardWorker, "controls", measure)
    run(split="val")
    shown = capsys.readouterr().out
    assert shown.index("Labels") < shown.index("Controls") < shown.index("random directions")
    assert {row["kind"] for row in read_json(tmp_path / "labels/controls.json")} >= {"zero"}

    monkeypatch.setattr(ShardWorker, "controls", stopped)  # they are measured once
    run(split="val")
    assert capsys.readouterr().out == shown


def test_json_is_one_line_per_vector_and_nothing_else(run, capsys):
    rows = run(split="val", scales=["0.5,2"], json=True)
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["index"] for one in printed] == [row["index"] for row in rows[::2]]
    assert all(one in rows for one in printed)


def test_the_command_writes_what_the_library_gives(run, golden_dir):
    vectors = golden_dir / "vectors.safetensors"
    options = {"samples": 2, "temperature": 0.9, "top_p": 0.8, "seed": 5}
    rows = run(vectors, scales=["1.5"], **options)
    adapter = load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors")
    labeller = Labeller(load_model(golden_dir / "model", "float32"), adapter)
    (tensor,) = load_file(vectors).values()
    answers = labeller.label(tensor, (1.5,), max_new_tokens=8, **options)
    assert [(row["label"], row["seed"]) for row in rows] == [
        (answer.text, answer.seed) for labels in answers for answer in labels
    ]
    assert [row["index"] for row in rows] == [i for i in range(8) for _ in range(2)]


def test_limit_and_indices_take_some(run):
    every = run()
    assert len(every) == 48
    assert [r["index"] for r in run(limit=3, out="a")] == [r["index"] for r in every[:3]]
    picked = run(indices="0:2,5", out="b")
    assert [r["index"] for r in picked] == [r["index"] for r in every if r["index"] in (0, 1, 5)]


def test_several_samples_are_drawn_warm_and_one_is_greedy(run, golden_dir, tmp_path):
    vectors = golden_dir / "vectors.safetensors"
    run(vectors, samples=2, out="several")
    run(vectors, out="one")
    settings = [
        json.loads((tmp_path / name / "config.json").read_text())["settings"]["temperature"]
        for name in ("several", "one")
    ]
    assert settings == [0.7, 0.0]


def test_without_an_adapter_a_few_scales_are_tried(run, golden_dir):
    rows = run(golden_dir / "vectors.safetensors", adapter=None, limit=1)
    assert [row["scale"] for row in rows] == [0.5, 0.8, 1.3, 2.1, 3.4, 5.5]


def test_explain_shows_what_ranked_the_candidates_with_control_characters_tamed(
    run, golden_dir, capsys
):
    rows = run(golden_dir / "vectors.safetensors", best_of=4, explain=True)
    shown = capsys.readouterr().out
    assert shown.count("p zero") == 5
    assert "row 0" in shown
    assert f"{rows[0]['score']:.2f}" in shown
    assert not any(ord(c) < 32 and c != "\n" for c in shown)
    assert "\x7f" not in shown


def test_failed_vectors_are_an_error_after_the_rest_is_done(run, tmp_path):
    vectors = torch.randn(4, 48)
    vectors[2] = torch.nan
    save_file({"v": vectors}, tmp_path / "v.safetensors")
    with pytest.raises(LabellingError, match=r"1 of 4 vectors failed.*row 2: .*NaN.*again"):
        run(tmp_path / "v.safetensors")
    rows = read_jsonl(tmp_path / "labels/labels-00000.jsonl")
    assert [("error" in row) for row in rows] == [False, False, True, False]


def test_a_vector_with_a_norm_above_the_largest_float32_is_labelled(run, tmp_path):
    vectors = torch.randn(3, 48)
    vectors[1] = 1e38
    save_file({"v": vectors}, tmp_path / "v.safetensors")
    assert len(run(tmp_path / "v.safetensors")) == 3
    kinds = [row["kind"] for row in read_json(tmp_path / "labels/controls.json")]
    assert kinds == ["vectors of this run", "zero", "random", "shuffled"]


def test_controls_are_numbers_where_the_models_output_is_not_finite(run, tmp_path):
    with pytest.raises(LabellingError, match="output is not finite"):
        run(limit=2, scales=["1e40"])
    assert "NaN" not in (tmp_path / "labels/controls.json").read_text()


def test_a_split_of_vectors_alone_is_refused(run, golden_dir):
    with pytest.raises(
        ConfigError, match=r"--split val: .*vectors\.safetensors holds vectors alone"
    ):
        run(golden_dir / "vectors.safetensors", split="val")


def test_a_run_needs_the_name_of_a_folder(run, golden_dir, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFileError, match="an empty name"):
        label(str(SAMPLE), model=str(golden_dir / "model"), out="")
    assert list(tmp_path.iterdir()) == []


def test_a_confidence_beside_the_adapter_is_used_if_it_fits(run, golden_dir, tmp_path, capsys):
    adapter = tmp_path / "a.safetensors"
    adapter.write_bytes((golden_dir / "adapters/scalar_affine_norm.safetensors").read_bytes())
    vectors = golden_dir / "vectors.safetensors"
    plain = run(vectors, adapter=str(adapter), out="none")
    assert "confidence" not in plain[0]
    settings = json.loads((tmp_path / "none/config.json").read_text())["settings"]
    keys = ("scales", "samples", "temperature", "top_p", "repetition_penalty", "max_new_tokens")
    drawn = {**{key: settings[key] for key in keys}, "best_of": False}
    confidence = Confidence({"gain": 3.0, "log_prob": 0.1}, -0.2, 0.5, drawn)
    confidence.save(tmp_path / "a.confidence.json")
    rows = run(vectors, adapter=str(adapter), out="with")
    for row, before in zip(rows, plain, strict=True):
        assert row["label"] == before["label"]
        expected = confidence.score(row["gain"], row["log_prob"] / row["tokens"])
        assert row["confidence"] == pytest.approx(expected, abs=1e-3)
        assert row["concept"] == (expected >= 0.5)
    assert "shown as a concept" in capsys.readouterr().out
    run(vectors, adapter=str(adapter), max_new_tokens=9, out="other")
    assert "max_new_tokens 8, not 9): labels get no confidence" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="sampled in another way"):
        run(
            vectors,
            adapter=str(adapter),
            max_new_tokens=9,
            out="asked",
            confidence=str(tmp_path / "a.confidence.json"),
        )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": -1.0}, ConfigError, "temperature"),
        ({"top_p": 0.0}, ConfigError, "--top-p: "),
        ({"samples": 0}, ConfigError, "samples"),
        ({"max_new_tokens": 0}, ConfigError, "--max-new-tokens: "),
        ({"repetition_penalty": 0.0}, ConfigError, "--repetition-penalty: "),
        ({"scales": ["1,x"]}, ConfigError, 'scales: "x" is not a number'),
        ({"scales": ["1,1"]}, ConfigError, "each scale must be given only once"),
        ({"scales": ["nan"]}, ConfigError, "finite"),
        ({"indices": "5:2"}, ConfigError, "chooses none of 0 to 23"),
        ({"indices": "a"}, ConfigError, "neither a number nor a slice"),
        ({"indices": "900"}, ConfigError, "900 is out of range; choose from 0 to 23"),
        ({"adapter": str(SAMPLE)}, AdapterError, "sample.json"),
        ({"model": "./nowhere"}, ModelError, "nowhere"),
        ({"out": "labels.jsonl"}, ConfigError, "--out must name a folder"),
        ({"engine": "vllm"}, MissingExtraError, r"selfie-adapters\[vllm\]"),
        ({"adapter": ""}, ConfigError, "--adapter: "),
        ({"which": "encoder"}, ConfigError, "--which encoder: .*sample.json is a file"),
    ],
)
def test_errors_come_before_anything_is_written(options, error, message, run, tmp_path):
    with pytest.raises(error, match=message):
        run(**options)
    assert list(tmp_path.iterdir()) == []


def test_a_label_file_without_vectors_is_refused(run, tmp_path):
    path = tmp_path / "labels.json"
    metadata = {"dataset_name": "x", "layer": 1, "source": "s", "vector_type": "v"}
    item = {"index": 0, "labels": ["a"], "split": "train"}
    path.write_text(json.dumps([{"metadata": metadata, "vectors": [item]}]))
    with pytest.raises(DataError, match="filename"):
        run(path)


def selfie(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "selfie_adapters", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_adapter_and_sae_come_from_a_hub_by_name(golden_dir, tmp_path):
    """The labels are those of the same vectors and the same adapter given as files."""
    entry = find_sae("llama_scope_lxr_8x", "l19r_8x")
    weights = small_saes.parts(0)
    small_saes.llama_scope(tmp_path / "hub" / entry.repo, entry.path, weights)
    owner = "keenanpepper/selfie-adapters-llama-3.1-8b-instruct"
    adapter = golden_dir / "adapters/scalar_affine_norm.safetensors"
    (tmp_path / "hub" / owner).mkdir(parents=True)
    (tmp_path / "hub" / owner / "goodfire.safetensors").write_bytes(adapter.read_bytes())
    common = ["--model", golden_dir / "model", "--dtype", "float32", "--max-new-tokens", 6]
    common += ["--indices", "0:4,9"]
    with hub_server(tmp_path / "hub") as (address, _):
        hub = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        named = ["label", "llama_scope_lxr_8x:l19r_8x", *common, "--out", tmp_path / "named"]
        done = selfie(*named, "--adapter", f"{owner}/goodfire.safetensors", **hub)
        assert done.returncode == 0, done.stderr
        wrong = selfie(*named[:-1], tmp_path / "x", "--adapter", f"{owner}/godfire.pt", **hub)
        assert wrong.returncode == 1
        assert "godfire.pt" in wrong.stderr
    save_file({"v": weights["W_dec"]}, tmp_path / "rows.safetensors")
    files = ["label", tmp_path / "rows.safetensors", *common, "--adapter", adapter]
    done = selfie(*files, "--out", tmp_path / "files")
    assert done.returncode == 0, done.stderr
    rows = read_jsonl(tmp_path / "named/labels-00000.jsonl")
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 9]
    assert [row["label"] for row in rows] == [
        row["label"] for row in read_jsonl(tmp_path / "files/labels-00000.jsonl")
    ]


@pytest.mark.slow
def test_a_killed_command_goes_on_and_exits_0_only_when_complete(golden_dir, tmp_path):
    save_file({"v": torch.randn(300, 48)}, tmp_path / "v.safetensors")
    arguments = ["label", tmp_path / "v.safetensors", "--model", golden_dir / "model"]
    arguments += ["--adapter", golden_dir / "adapters/scalar_affine_norm.safetensors"]
    arguments += ["--samples", 4, "--shard-size", 20, "--batch-size", 8, "--dtype", "float32"]
    command = [sys.executable, "-m", "selfie_adapters", *map(str, arguments)]
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [*command, "--out", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while len(list(folder.glob("labels-*.jsonl"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    assert len(list(folder.glob("labels-*.jsonl"))) < 15
    assert selfie(*arguments, "--out", folder).returncode == 0
    assert selfie(*arguments, "--out", tmp_path / "whole").returncode == 0
    for path in sorted((tmp_path / "whole").glob("labels-*")):
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert json.loads((folder / "progress.json").read_text())["complete"]


@pytest.mark.parametrize("kept", [False, True])
def test_an_engine_that_fails_at_its_start_leaves_no_claimed_folder(run, tmp_path, kept):
    """A run that has labels already keeps them."""
    if kept:
        run(limit=2, shard_size=1)
        (tmp_path / "labels" / "labels-00001.jsonl").unlink()
    before = sorted(path.name for path in (tmp_path / "labels").glob("*"))

    def fails(job, *_rest):
        assert (job.folder / "config.json").exists()
        raise LabellingError("Ray: no process could begin")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("selfie_adapters.commands.label.require_extra", lambda *_: None)
        patch.setattr("selfie_adapters.labelling.engines.ray.run_with_ray", fails)
        with pytest.raises(LabellingError, match="no process could begin"):
            run(limit=2, shard_size=1, engine="ray")
    assert (tmp_path / "labels").exists() is kept
    assert sorted(path.name for path in (tmp_path / "labels").glob("*")) == before
    if not kept:
        run(limit=2, max_new_tokens=5)  # other settings: the folder is free
