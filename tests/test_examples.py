from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import loaded_process
from selfie_adapters.dataset import load_dataset
from selfie_adapters.dataset.vectors import DIGEST_KEY
from selfie_adapters.files.json_lines import read_jsonl

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data/sample"
NUMBER = r"[+-]?\d+\.\d+"


@pytest.fixture
def python(tmp_path):
    def run(*args: object) -> str:
        done = loaded_process.run(args, tmp_path, SELFIE_CACHE=str(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def example(python, golden_dir):
    def run(name: str, *args: object) -> str:
        return python(ROOT / "examples" / name, *args, "--model", golden_dir / "model")

    return run


@pytest.mark.parametrize("data", [(), ("--data", SAMPLE / "sample.json")])
def test_train_and_label(data, example, tmp_path):
    shown = example("train_and_label.py", "--steps", 3, "--out", tmp_path / "out", *data)
    rows = read_jsonl(tmp_path / "out/run/metrics.jsonl")
    assert [row["step"] for row in rows if row["event"] == "step"] == [1, 2, 3]
    assert len(re.findall(rf"^\w+: .* \({NUMBER} nats\)$", shown, re.MULTILINE)) == 2


def test_label_losses(example):
    shown = example("label_losses.py", "owl", "a warm dish", "--topic", "soup", "--layer", 1)
    rows = re.findall(rf"^ *({NUMBER}) +({NUMBER}) +({NUMBER})  (.+)$", shown, re.MULTILINE)
    assert [row[3] for row in rows] == ["owl", "a warm dish"]
    for given, zero, difference, _ in rows:
        assert float(zero) - float(given) == pytest.approx(float(difference), abs=2e-3)


def test_label_losses_of_a_trained_adapter(example, golden_dir):
    adapter = golden_dir / "adapters/scalar_affine_norm.safetensors"
    assert "difference" in example("label_losses.py", "owl", "--adapter", adapter)


def test_capture_topics(example):
    shown = example("capture_topics.py", "owl", "bee", "fog")
    rows = re.findall(rf"^  (?:owl|bee|fog) +({NUMBER}) +({NUMBER}) +({NUMBER})$", shown, re.M)
    assert len(rows) == 6  # as captured, then minus the mean
    for table in (rows[:3], rows[3:]):
        assert [table[i][i] for i in range(3)] == ["1.000"] * 3


@pytest.fixture
def make_sample():
    return runpy.run_path(str(ROOT / "scripts/make_sample_data.py"))["main"]


def test_the_sample_script_writes_the_sample_that_is_checked_in(make_sample, tmp_path):
    make_sample(tmp_path / "made")
    names = sorted(path.name for path in SAMPLE.iterdir())
    names.remove("titles.txt")  # written by hand
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == names
    made, kept = load_dataset(tmp_path / "made/sample.json"), load_dataset(SAMPLE / "sample.json")
    # The sample is without digests: its vectors' last bits depend on the machine.
    for ours, theirs in zip(made.sections, kept.sections, strict=True):
        assert ours.vectors.allclose(theirs.vectors)
        metadata = {key: value for key, value in ours.metadata.items() if key != DIGEST_KEY}
        assert (metadata, ours.items) == (theirs.metadata, theirs.items)
    assert (tmp_path / "made/topics.jsonl").read_bytes() == (SAMPLE / "topics.jsonl").read_bytes()


def test_making_the_sample_twice_gives_the_same_bytes(make_sample, tmp_path):
    for folder in ("a", "b"):
        make_sample(tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_the_sample_has_two_layers_two_labels_each_and_is_small():
    dataset = load_dataset(SAMPLE / "sample.json")
    assert [section.id for section in dataset.sections] == ["everyday@l1", "everyday@l2"]
    suffixes = {path.suffix for path in SAMPLE.iterdir()}
    assert suffixes == {".json", ".jsonl", ".pt", ".safetensors", ".txt"}
    assert all(len(item.labels) == 2 for item in dataset.labelled())
    assert len(dataset.labelled("train")) == len(dataset.labelled("val")) * 3 == 36
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < 60_000


def test_the_python_of_the_data_guide_runs(python, tmp_path):
    (block,) = re.findall(r"```python\n(.+?)```", (ROOT / "data/README.md").read_text(), re.DOTALL)
    (tmp_path / "guide.py").write_text(block)
    python(tmp_path / "guide.py")
    dataset = load_dataset(tmp_path / "mine.json")
    assert dataset.sections[0].id == "mine@l1"
    assert len(dataset.examples("train")) + len(dataset.examples("val")) == 5
