from __future__ import annotations

import json

import pytest

from selfie_adapters.errors import DataError, MissingFileError
from selfie_adapters.training import train
from selfie_adapters.training.run_reading import compare_runs, find_runs, read_run
from toy_run import config_for


@pytest.fixture
def make(tmp_path):
    def make(name, training, validation, **config):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(json.dumps(config))
        rows = [{"event": "step", "step": s, "loss": loss} for s, loss in training.items()]
        rows += [{"event": "validation", "step": s, "val_loss": v} for s, v in validation.items()]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return make


def test_runs_are_listed_best_first_and_those_without_a_loss_last(make, tmp_path):
    make("middling", {1: 3.0}, {1: 2.0, 2: 2.5})
    make("deep/down/best", {1: 3.0}, {1: 1.5})
    make("untold", {1: 3.0}, {})
    (tmp_path / "not a run").mkdir()
    found = find_runs(tmp_path)
    assert [run.path.name for run in found] == ["best", "middling", "untold"]
    assert found[1].best == (1, 2.0)
    assert found[1].steps == 2
    assert not found[0].finished


def test_a_nan_is_never_the_best(make):
    assert read_run(make("a", {}, {1: float("nan"), 2: 3.0})).best == (2, 3.0)


def test_a_real_run_is_read_back(data, model):
    run = read_run(train(config_for(data), model))
    assert run.finished
    assert run.steps == 12
    assert list(run.validation) == [4, 8, 12]
    assert run.config["projection.type"] == "scalar_affine"


def test_two_runs_are_compared_key_by_key_and_step_by_step(make):
    a = read_run(make("a", {1: 4.0, 2: 3.0}, {2: 2.0, 4: 1.0}, seed=1, t={"rate": 0.1, "same": 1}))
    b = read_run(
        make("b", {1: 5.0, 2: 3.5, 3: 1}, {4: 1.5, 6: 1.0}, seed=2, t={"same": 1, "new": 3})
    )
    found = compare_runs(a, b)
    assert found.config == {"seed": (1, 2), "t.rate": (0.1, None), "t.new": (None, 3)}
    assert found.validation == [(4, 1.0, 1.5)]
    assert found.training == [(1, 4.0, 5.0), (2, 3.0, 3.5)]
    assert json.loads(json.dumps(found.as_dict()))["a"]["best_val_loss"] == 1.0


def test_long_training_curves_are_compared_in_ten_stretches(make):
    a = read_run(make("a", {step: float(step) for step in range(1, 101)}, {}))
    b = read_run(make("b", dict.fromkeys(range(1, 101), 0.0), {}))
    rows = compare_runs(a, b).training
    assert [row[0] for row in rows] == list(range(10, 101, 10))
    assert rows[0] == (10, 5.5, 0.0)  # mean of 1 to 10


def test_what_is_no_run_is_said(make, tmp_path):
    with pytest.raises(MissingFileError, match="holds no run"):
        read_run(tmp_path)
    with pytest.raises(MissingFileError, match="no such folder"):
        find_runs(tmp_path / "nowhere")
    folder = make("bad", {}, {})
    (folder / "metrics.jsonl").write_text('{"event": "step", "step": "x", "loss": 1}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl, line 1"):
        read_run(folder)
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(DataError, match="not valid YAML"):
        read_run(folder)
