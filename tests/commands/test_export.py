from __future__ import annotations

import json

import pytest

from selfie_adapters.commands.export import export
from selfie_adapters.commands.label import label
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import ConfigError, MissingFileError


@pytest.fixture
def run(golden_dir, tmp_path):
    label(
        str(golden_dir / "vectors.safetensors"),
        adapter=str(golden_dir / "adapters/scalar_affine_norm.safetensors"),
        model=str(golden_dir / "model"),
        out=str(tmp_path / "run"),
        max_new_tokens=4,
        shard_size=3,
        dtype="float32",
    )
    return tmp_path / "run"


def test_files_go_into_the_run_folder_or_where_they_are_asked_for(run, tmp_path, capsys):
    export(str(run), format="csv")
    assert (run / "labels.csv").read_text(encoding="utf-8").startswith("index,label,raw,scale")
    export(str(run), format="parquet", out=str(tmp_path / "x.parquet"))
    assert (tmp_path / "x.parquet").stat().st_size
    export(str(run), format="neuronpedia", model_id="a", source_id="b")
    rows = (run / "explanations.jsonl").read_text(encoding="utf-8").strip("\n").split("\n")
    assert {json.loads(row)["modelId"] for row in rows} == {"a"}
    export(str(run), format="training", layer=2)
    assert load_dataset(run / "training.json").sections[0].layer == 2
    assert "8 rows" in capsys.readouterr().out


def test_a_run_that_is_not_complete_is_exported_as_far_as_it_goes_and_says_so(run, capsys):
    (run / "labels-00001.jsonl").unlink()
    export(str(run), format="csv")
    shown = capsys.readouterr().out
    assert "not complete: 3 of 8 vectors are not exported" in shown
    assert "5 rows" in shown


@pytest.mark.parametrize(("form", "name"), [("csv", "labels.csv"), ("parquet", "labels.parquet")])
def test_an_older_result_stays_unless_it_is_to_be_overwritten(run, form, name):
    (run / name).write_text("older")
    with pytest.raises(ConfigError, match=rf"{name} exists.*--overwrite"):
        export(str(run), format=form)
    assert (run / name).read_text() == "older"
    export(str(run), format=form, overwrite=True)
    assert (run / name).read_bytes() != b"older"


def test_neuronpedia_needs_its_own_names(run):
    with pytest.raises(ConfigError, match="--model-id and --source-id"):
        export(str(run), format="neuronpedia", model_id="a")
    assert not (run / "explanations.jsonl").exists()


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(MissingFileError):
        export(str(tmp_path), format="csv")
