"""`selfie label --shard I/N`: parts on several machines, joined by copying, equal the whole run."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.commands.label import label
from selfie_adapters.errors import ConfigError


@pytest.fixture
def run(golden_dir, tmp_path, capsys):
    vectors = torch.randn(7, 48, generator=torch.Generator().manual_seed(0))
    save_file({"vectors": vectors}, tmp_path / "v.safetensors")

    def run(out, **options):
        settings = {
            "adapter": str(golden_dir / "adapters/scalar_affine_norm.safetensors"),
            "model": str(golden_dir / "model"),
            "dtype": "float32",
            "max_new_tokens": 4,
            "shard_size": 2,
            **options,
        }
        label(str(tmp_path / "v.safetensors"), out=str(tmp_path / out), **settings)
        return capsys.readouterr().out

    return run


def _files(folder):
    return {path.name: path.read_text() for path in folder.glob("labels-*.jsonl")}


def test_parts_joined_are_the_whole_run(run, tmp_path, monkeypatch):
    run("whole")
    assert "2 vectors labelled" in run("part1", shard="1/3")
    run("part0", shard="0/3")
    run("part2", shard="2/3")
    assert sorted(_files(tmp_path / "part0")) == ["labels-00000.jsonl", "labels-00003.jsonl"]
    assert sorted(_files(tmp_path / "part1")) == ["labels-00001.jsonl"]
    for part in ("part0", "part2"):
        shutil.copytree(tmp_path / part, tmp_path / "joined", dirs_exist_ok=True)
    run("joined")  # what is missing is labelled
    assert _files(tmp_path / "joined") == _files(tmp_path / "whole")
    progress = json.loads((tmp_path / "joined/progress.json").read_text())
    assert progress == {"vectors": 7, "labelled": 7, "failed": 0, "complete": True}
    shutil.copytree(tmp_path / "part1", tmp_path / "joined", dirs_exist_ok=True)

    def never(*_arguments):
        raise AssertionError("a complete run was labelled again")

    monkeypatch.setattr("selfie_adapters.labelling.worker.ShardWorker.__init__", never)
    assert "7 vectors labelled" in run("joined")
    assert "2 vectors labelled" in run("part1", shard="1/3")


@pytest.mark.parametrize("part", ["3/3", "1", "1/0", "a/b", "-1/2", "1/2/3", "", "/", "²/3"])
def test_what_is_no_part_is_refused(part, run):
    with pytest.raises(ConfigError, match="--shard: I/N is expected"):
        run("out", shard=part)


def test_a_shard_that_gets_no_file_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="--shard 4/5: the run has 4 files of 2 vectors"):
        run("out", shard="4/5")
    assert not (tmp_path / "out/config.json").exists()


@pytest.mark.parametrize(
    ("option", "flag"), [({"workers": 2}, "--workers"), ({"ray_address": "auto"}, "--ray-address")]
)
def test_what_belongs_to_another_engine_is_refused(option, flag, run, tmp_path):
    with pytest.raises(ConfigError, match=f"{flag} belongs to --engine ray; the engine is local"):
        run("out", **option)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("count", [0, -1])
def test_no_workers_are_refused(count, run):
    with pytest.raises(ConfigError, match="--workers"):
        run("out", engine="ray", workers=count)
