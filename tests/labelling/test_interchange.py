"""Labels of a run for delphi, SAEBench and as tables of Natural Language Autoencoders."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from pyarrow import parquet
from safetensors.torch import save_file

from label_runs import NASTY, row
from selfie_adapters.dataset.nla import sidecar_file
from selfie_adapters.dataset.vectors import open_directions
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.labelling.finished_run import open_run
from selfie_adapters.labelling.interchange import to_delphi, to_nla, to_saebench
from selfie_adapters.sources.labels.files import read_label_file

BEST = {i: [label] for i, label in enumerate(NASTY)}


def test_saebench_takes_the_labels_by_latent(run, tmp_path):
    assert to_saebench(open_run(run()), tmp_path / "x.json") == 6
    content = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    override = {int(latent): label for latent, label in content.items()}
    assert override == dict(enumerate(NASTY))
    assert read_label_file(tmp_path / "x.json").labels == {
        i: [x.strip()] for i, (x,) in BEST.items()
    }


def test_delphi_gets_one_file_for_each_latent_and_its_reader_reads_them(run, tmp_path):
    with pytest.raises(ConfigError, match="which layer .* --layer"):
        to_delphi(open_run(run()), tmp_path / "d")
    stale = tmp_path / "d/explanations/layers.12_latent99.txt"
    other = tmp_path / "d/explanations/layers.3_latent99.txt"
    stale.parent.mkdir(parents=True)
    stale.write_text('"of an earlier run"')
    other.write_text('"of another layer"')
    assert to_delphi(open_run(run()), tmp_path / "d", layer=12) == 6
    assert other.exists()
    assert not stale.exists()
    text = (tmp_path / "d/explanations/layers.12_latent4.txt").read_text(encoding="utf-8")
    assert json.loads(text) == NASTY[4]
    (score,) = json.loads((tmp_path / "d/scores/selfie/layers.12_latent4.txt").read_text())
    assert (score["gain"], score["log_prob"], score["probability"]) == (0.75, -1.5, 0.9)
    # What delphi's own reader asks every example for:
    assert {"str_tokens", "distance", "activating", "prediction", "probability", "correct"} <= {
        *score
    }
    assert read_label_file(tmp_path / "d/explanations/layers.12").labels == BEST


def test_an_nla_table_holds_vectors_and_labels_and_is_read_back(run, vectors, tmp_path):
    mean = torch.tensor([1.0, 2.0, 3.0, 4.0])
    save_file({"layer_12": mean}, tmp_path / "mean.safetensors")
    folder = run(mean=str(tmp_path / "mean.safetensors"))
    out = tmp_path / "x.parquet"
    assert to_nla(open_run(folder), out, layer=12) == 6
    rows, layers = open_directions(out)
    torch.testing.assert_close(rows, vectors[:6] - mean)
    assert layers == (12,) * 6
    assert read_label_file(out).labels == BEST
    first = parquet.read_table(out).to_pylist()[0]
    assert first["response"] == f"<explanation>\n{NASTY[0]}\n</explanation>"
    assert "<INJECT>" in first["prompt"][0]["content"]
    sidecar = yaml.safe_load(sidecar_file(out).read_text(encoding="utf-8"))
    assert (sidecar["kind"], sidecar["schema_version"]) == ("nla_dataset", 2)
    assert sidecar["row_count"] == 6
    assert sidecar["extraction"]["d_model"] == 4
    assert sidecar["extraction"]["layer_index"] == 12


def test_what_a_format_cannot_hold_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match=r"ends in \.parquet"):
        to_nla(open_run(run()), tmp_path / "x.csv", layer=1)
    folder = run([row(0, "")])
    for write in (to_nla, to_delphi):
        with pytest.raises(DataError, match="no vector has a label"):
            write(open_run(folder), tmp_path / "x.parquet", 1)
    assert not (tmp_path / "x.parquet").exists()
    folder = run([row(0, "a", dataset="x@l1"), row(1, "b", dataset="y@l1")])
    with pytest.raises(ConfigError, match="several datasets"):
        to_saebench(open_run(folder), tmp_path / "x.json")
