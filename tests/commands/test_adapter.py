"""`selfie adapter show`."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from selfie_adapters.adapters import Binding, TrainingRecord, create_adapter
from selfie_adapters.cli import app
from selfie_adapters.commands.adapter import show


@pytest.fixture(autouse=True)
def wide_output(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def test_json_holds_the_numbers_worked_by_hand(golden_dir, capsys):
    path = golden_dir / "adapters" / "scalar_affine_plus_low_rank_norm.safetensors"
    show(str(path), json=True)
    facts = json.loads(capsys.readouterr().out)
    tensors = load_file(path)
    matrix = (tensors["U"] @ tensors["V"].T).astype(np.float64)
    scale = float(np.exp(tensors["log_scale"][0]))
    assert facts["kind"] == "scalar_affine_plus_low_rank"
    assert facts["num_parameters"] == 337
    assert facts["file_bytes"] == len(path.read_bytes())
    assert facts["scale"] == pytest.approx(scale, rel=1e-6)
    assert facts["bias_norm"] == pytest.approx(np.linalg.norm(tensors["bias"]), rel=1e-6)
    np.testing.assert_allclose(facts["singular_values"], np.linalg.svd(matrix)[1][:3], rtol=1e-5)
    # ‖U Vᵀ‖_F against ‖scale·I‖_F
    share = np.linalg.norm(matrix) / np.linalg.norm(scale * np.eye(48))
    assert facts["low_rank_share"] == pytest.approx(share, rel=1e-5)
    assert (facts["global_step"], facts["best_val_loss"]) == (7, 1.25)
    assert facts["config"]["training"]["learning_rate"] == 0.01
    assert facts["binding"] is None


def test_full_rank_shows_the_largest_singular_values_of_its_matrix(golden_dir, capsys):
    path = golden_dir / "adapters" / "full_rank_norm.pt"
    show(str(path), json=True)
    facts = json.loads(capsys.readouterr().out)
    weight = load_file(path.with_suffix(".safetensors"))["weight"]
    np.testing.assert_allclose(facts["singular_values"], np.linalg.svd(weight)[1][:8], rtol=1e-5)
    assert facts["scale"] is None
    assert facts["low_rank_share"] is None


def test_table_of_a_published_file(golden_dir, capsys):
    show(str(golden_dir / "adapters" / "scalar_affine_norm.safetensors"))
    out = capsys.readouterr().out
    for expected in (
        "scalar_affine",
        "49 parameters, width 48, 2,444 bytes",
        "(started at 2)",
        "bias norm",
        "7 steps, best validation loss 1.2500",
        "training.learning_rate",
        "not bound",
    ):
        assert expected in out
    assert "singular values" not in out
    assert "low-rank share" not in out


def test_table_shows_the_binding_and_lets_no_control_character_through(tmp_path, capsys):
    adapter = create_adapter("identity", 6)
    adapter.binding = Binding(
        model="org/model",
        revision="abc123",
        d_model=6,
        template='[bold]What is "<x>"?\n',
        placeholder="<x>",
        placeholder_id=260,
        sites=(3, 7),
        layer=19,
        mean_embedding_norm=1.5,
        versions={"torch": "2.8.0"},
        fingerprint=(0.1, -2.0),
    )
    adapter.record = TrainingRecord({"experiment_name": "first\x1b[31m run"})
    show(str(adapter.save(tmp_path / "a.pt")))
    out = capsys.readouterr().out
    assert "org/model at abc123, d_model 6, vectors from layer 19" in out
    assert r'"[bold]What is \"<x>\"?\n"' in out
    assert "<x> (token 260) at positions 3, 7" in out
    assert "torch 2.8.0" in out
    assert "0 steps, not validated" in out
    assert "first" in out
    assert "\x1b" not in out


def test_the_command_line_reaches_it(golden_dir, capsys):
    path = golden_dir / "adapters" / "scale_only_norm.safetensors"
    with contextlib.suppress(SystemExit):  # a finished command may or may not end the process
        app(["adapter", "show", str(path), "--json"])
    assert json.loads(capsys.readouterr().out)["kind"] == "scale_only"


def test_an_error_is_one_line_on_stderr(golden_dir):
    command = [sys.executable, "-c", "from selfie_adapters.cli import main; main()"]
    ran = subprocess.run(
        [*command, "adapter", "show", str(golden_dir / "vectors.pt"), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
    assert "file of vectors" in ran.stderr
