"""`selfie eval retrieval|taboo|loss`: settings files, tables, figures, and a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from chat_server import chat_server, says
from killed_eval import check_kill
from letters import LettersEmbedder
from selfie_adapters.commands.eval import PROTOCOLS
from selfie_adapters.config.settings import read_config
from selfie_adapters.errors import ConfigError
from selfie_adapters.evaluation.retrieval import embedding
from selfie_adapters.files.json_lines import read_jsonl

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data/sample/sample.json"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Write settings to NAME.yaml and evaluate by them; returns results.json."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(embedding, "SentenceEmbedder", lambda _name, device: LettersEmbedder())
    monkeypatch.setenv("SELFIE_CACHE", str(tmp_path / "cache"))

    def run(name, set_=None, **settings):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        PROTOCOLS[name](config=f"{name}.yaml", set_=set_)
        return json.loads((tmp_path / "results" / name / "results.json").read_text())

    return run


def golden_settings(golden_dir):
    return {
        "model": str(golden_dir / "model"),
        "dtype": "float32",
        "adapters": {"plain": str(golden_dir / "adapters/scalar_affine_norm.safetensors")},
        "untrained_scales": [1.0],
    }


def test_retrieval_then_taboo_by_settings_files(run, golden_dir, tmp_path, capsys):
    names = _titles()
    (tmp_path / "topics.jsonl").write_text(
        "".join(json.dumps({"name": n, "labels": labels}) + "\n" for n, labels in names)
    )
    common = {"topics": "topics.jsonl", "embedder": "letters"}
    results = run(
        "retrieval",
        ["limit=6"],
        vectors=str(SAMPLE),
        max_new_tokens=4,
        **common,
        **golden_settings(golden_dir),
    )
    assert results["counts"] == {"topics": len(names), "queries": 6}
    shown = capsys.readouterr().out
    for text in ("plain: zero vector", "recall@1", "Holm's p", "results.json"):
        assert text in shown
    assert list((tmp_path / "cache/embeddings").glob("letters-1*.sqlite"))

    with chat_server(lambda asked: says("A thing that is not named.")) as stub:
        found = run(
            "taboo",
            retrieval="results/retrieval",
            chat={"model": "served", "url": stub.address},
            **common,
        )
    about = {row["topic"] for row in read_jsonl("results/retrieval/labels.jsonl")}
    assert found["counts"]["asked"] == len(stub.asked) == len(about)  # vectors may share a topic
    assert [pair["first"] for pair in found["comparisons"]][:2] == ["plain", "plain, redacted"]
    assert f"0 of {len(about)} answers had the name" in capsys.readouterr().out


def _titles():
    from selfie_adapters.dataset import load_dataset

    different = dict.fromkeys(tuple(item.labels) for item in load_dataset(SAMPLE).labelled())
    return [(labels[0], list(labels)) for labels in different]


def test_loss_by_a_settings_file_draws_the_matrix(run, golden_dir, tmp_path, capsys):
    settings = golden_settings(golden_dir)
    settings["adapters"]["full"] = str(golden_dir / "adapters/full_rank_norm.safetensors")
    results = run("loss", datasets={"sample": str(SAMPLE)}, **settings)
    assert results["matrix"]["rows"] == ["plain", "full", "untrained", "identity"]
    figure = (tmp_path / "results/loss/matrix.svg").read_text()
    assert figure.startswith("<svg")
    rows = read_jsonl(tmp_path / "results/loss/examples.jsonl")
    assert {row["adapter"] for row in rows} == {"plain", "full"}
    shown = capsys.readouterr().out
    for text in ("bias share", "shuffled", "untrained", "matrix.svg"):
        assert text in shown


def test_a_settings_file_with_a_slip_names_the_key(run, golden_dir):
    with pytest.raises(ConfigError, match=r'adaptors: unknown key. Did you mean "adapters"'):
        run("retrieval", adaptors={"a": "x"})


@pytest.mark.parametrize(
    "file", sorted((ROOT / "evaluation/configs").glob("*.yaml")), ids=lambda file: file.stem
)
def test_the_settings_files_of_the_project_are_valid(file):
    name = next(name for name in PROTOCOLS if file.stem.startswith(name))
    read_config(file, PROTOCOLS[name].settings)


def test_a_protocol_without_a_file(golden_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = golden_settings(golden_dir)
    PROTOCOLS["loss"](
        model=settings["model"],
        dtype="float32",
        adapters=[f"{name}={file}" for name, file in settings["adapters"].items()],
        datasets=[f"sample={SAMPLE}"],
        untrained_scales=["1"],
        limit=3,
    )
    results = json.loads((tmp_path / "results/loss/results.json").read_text())
    assert results["settings"]["limit"] == 3
    assert results["settings"]["adapters"] == settings["adapters"]
    assert results["settings"]["untrained_scales"] == [1.0]


def test_options_replace_the_values_of_the_file_and_paths_in_it_are_beside_it(
    run, golden_dir, tmp_path, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(SAMPLE.parent, tmp_path, dirs_exist_ok=True)
    settings = golden_settings(golden_dir) | {"datasets": {"sample": "sample.json"}, "limit": 2}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path / "elsewhere")
    PROTOCOLS["loss"](config=str(tmp_path / "mine.yaml"), limit=3, out="out")
    results = json.loads((tmp_path / "elsewhere/out/results.json").read_text())
    assert results["settings"]["limit"] == 3
    assert results["settings"]["datasets"] == {"sample": str(tmp_path / "sample.json")}


def test_a_process_killed_by_force_goes_on_to_the_same_results(golden_dir, tmp_path):
    settings = golden_settings(golden_dir) | {"datasets": {"sample": str(SAMPLE)}, "batch_size": 1}
    (tmp_path / "loss.yaml").write_text(yaml.safe_dump(settings))
    files = ("results.json", "examples.jsonl", "matrix.svg")
    check_kill(tmp_path, "loss", tmp_path / "loss.yaml", files)
