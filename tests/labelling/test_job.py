"""A labelling run on the golden model: killed, resumed, with vectors that fail."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import loaded_process
from label_jobs import run
from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.errors import (
    AdapterError,
    BindingError,
    ConfigError,
    DataError,
    LabellingError,
)
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.labelling.inputs import open_source
from selfie_adapters.labelling.job import LabelJob, usual_shard_size
from selfie_adapters.labelling.run_record import vectors_hash
from selfie_adapters.labelling.shards import cut_into_shards
from selfie_adapters.labelling.worker import ShardWorker

ADAPTER = "adapters/scalar_affine_norm.safetensors"


@pytest.fixture
def settings(golden_dir, tmp_path):
    """Settings of a run over 40 random vectors, in shards of 7."""
    save_file(
        {"v": torch.randn(40, 48, generator=torch.Generator().manual_seed(3))},
        tmp_path / "v.safetensors",
    )

    def settings(**options):
        values = {
            "source": str(tmp_path / "v.safetensors"),
            "model": str(golden_dir / "model"),
            "adapter": str(golden_dir / ADAPTER),
            "dtype": "float32",
            "max_new_tokens": 6,
            "shard_size": 7,
            "batch_size": 6,
            "samples": 2,
            "temperature": 1.0,
            **options,
        }
        return LabelSettings.checked(**values)

    return settings


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("labels-*"))}


def rows(folder: Path) -> list[dict]:
    return [row for name in sorted(folder.glob("labels-*.jsonl")) for row in read_jsonl(name)]


def test_a_run_leaves_shards_in_order_and_says_that_it_is_complete(settings, tmp_path):
    job = run(tmp_path / "run", settings())
    assert job.progress.complete
    assert list(shards(tmp_path / "run")) == [f"labels-0000{i}.jsonl" for i in range(6)]
    written = rows(tmp_path / "run")
    assert [(r["index"], r["sample"]) for r in written] == [
        (i, s) for i in range(40) for s in (0, 1)
    ]
    assert len({row["seed"] for row in written}) == 80
    progress = json.loads((tmp_path / "run/progress.json").read_text())
    assert progress == {"vectors": 40, "labelled": 40, "failed": 0, "complete": True}
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert LabelSettings.checked(**config["settings"]) == settings()
    binding = json.loads((tmp_path / "run/binding.json").read_text())
    assert binding["d_model"] == 48
    # bytes and special tokens, counted by hand: 4 specials, "user", two line ends, the question
    assert binding["sites"] == [33, 66]


def test_a_run_is_resumed_with_the_shards_that_it_has(settings, tmp_path):
    assert usual_shard_size(tmp_path / "run", "cpu") == 512
    run(tmp_path / "run", settings())
    assert usual_shard_size(tmp_path / "run", "cpu") == 7


def test_labels_do_not_depend_on_batches_shards_or_which_rows_are_asked_for(settings, tmp_path):
    texts = {}
    for name, options in {
        "a": {},
        "b": {"batch_size": 64, "shard_size": 512},
        "c": {"batch_size": 1, "shard_size": 3},
    }.items():
        run(tmp_path / name, settings(**options))
        texts[name] = [(r["index"], r["raw"], r["seed"]) for r in rows(tmp_path / name)]
    assert texts["a"] == texts["b"] == texts["c"]
    run(tmp_path / "some", settings(indices="30:33,5"))
    some = [(r["index"], r["raw"], r["seed"]) for r in rows(tmp_path / "some")]
    assert [place for place, *_ in some] == [5, 5, 30, 30, 31, 31, 32, 32]
    assert some == [row for row in texts["a"] if row[0] in (5, 30, 31, 32)]


KILLED = """
import sys, time
from pathlib import Path
import selfie_adapters.labelling.shards as shards
from selfie_adapters.labelling.inputs import open_source
from selfie_adapters.labelling.job import LabelJob, run_here, usual_shard_size
from selfie_adapters.labelling.run_record import vectors_hash
from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.labelling.worker import ShardWorker
append = shards.ShardFile.append
def slow(self, rows):
    append(self, rows)
    print("group", flush=True)
    time.sleep(0.05)
shards.ShardFile.append = slow
settings = LabelSettings.model_validate_json(sys.argv[2])
source = open_source(settings)
job = LabelJob(sys.argv[1], settings, source)
worker = ShardWorker(settings, source)
job.begin()
run_here(job, worker)
"""


def start_and_kill(folder: Path, settings: LabelSettings, after: int) -> None:
    """Start a run in another process and kill it without warning after some groups."""
    out, err = folder.with_suffix(".out"), folder.with_suffix(".err")
    command = ["-c", KILLED, folder, settings.model_dump_json()]
    process = loaded_process.start(command, folder.parent, out, err)
    while not (out.exists() and out.read_text().count("group") >= after):
        assert process.is_alive(), err.read_text()
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_a_killed_run_redoes_only_what_is_missing_and_ends_the_same(
    settings, tmp_path, monkeypatch
):
    whole = run(tmp_path / "whole", settings())
    assert whole.progress.complete
    folder = tmp_path / "killed"
    start_and_kill(folder, settings(), after=5)  # groups of 3 vectors: 7 of shard 0, 6 of shard 1
    before = shards(folder)
    assert "labels-00000.jsonl" in before
    assert any(name.endswith(".part") for name in before)
    assert not json.loads((folder / "progress.json").read_text())["complete"]
    # a kill can also tear the last line
    (part,) = folder.glob("*.part")
    with part.open("a") as file:
        file.write('{"position": 12, "rows": [{"ind')

    labelled = []
    label = ShardWorker.label
    monkeypatch.setattr(
        ShardWorker, "label", lambda self, v, p: labelled.extend(p) or label(self, v, p)
    )
    job = run(folder, settings())
    assert job.progress.complete
    assert not set(labelled) & set(range(10))  # what was there is not done again
    assert len(labelled) == len(set(labelled))
    assert shards(folder) == shards(tmp_path / "whole")
    assert not list(folder.glob("*.part"))
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("labels-*")}
    again = run(folder, settings())
    assert not again.todo()
    assert {path: path.stat().st_mtime_ns for path in folder.glob("labels-*")} == stamps


def test_vectors_that_fail_are_marked_and_tried_again(settings, tmp_path, golden_dir):
    vectors = torch.randn(20, 48, generator=torch.Generator().manual_seed(4))
    broken = vectors.clone()
    broken[3] = torch.nan
    broken[11, 5] = torch.inf
    path = tmp_path / "v.safetensors"
    options = settings(shard_size=8)
    save_file({"v": broken}, path)
    job = run(tmp_path / "run", options)
    assert (job.progress.labelled, job.progress.failed) == (18, 2)
    assert not job.progress.complete
    assert job.first_failure() == "row 3: the vector holds NaN or infinity"
    failed = [row for row in rows(tmp_path / "run") if "error" in row]
    assert failed == [
        {"index": 3, "error": "the vector holds NaN or infinity"},
        {"index": 11, "error": "the vector holds NaN or infinity"},
    ]
    good = [row for row in rows(tmp_path / "run") if "error" not in row]
    again = LabelJob(tmp_path / "run", options, open_source(options))
    assert [shard.number for shard in again.todo()] == [0, 1]
    # the file is other now, and says so
    save_file({"v": vectors}, path)
    with pytest.raises(ConfigError, match="with different vectors"):
        run(tmp_path / "run", options)
    # had only the reading gone wrong, the same run goes on
    config = tmp_path / "run/config.json"
    content = json.loads(config.read_text())
    content["inputs"]["vectors"] = vectors_hash(open_source(options))
    config.write_text(json.dumps(content))
    mended = run(tmp_path / "run", options)
    assert mended.progress.complete
    written = rows(tmp_path / "run")
    assert [row["index"] for row in written] == [i for i in range(20) for _ in (0, 1)]
    assert [row for row in written if row["index"] not in (3, 11)] == good
    run(tmp_path / "fresh", options)
    assert [r["raw"] for r in rows(tmp_path / "fresh")] == [r["raw"] for r in written]


def test_a_vector_that_upsets_the_model_does_not_take_its_neighbours_along(
    settings, tmp_path, monkeypatch
):
    from selfie_adapters.labelling import labeller

    soft_tokens = labeller.soft_tokens_of_rows
    fatal = open_source(settings()).at([8])[0]

    def fussy(adapters, vectors, scales):
        if any(torch.equal(vector, fatal) for vector in vectors):
            raise RuntimeError("kernel said no\nat some place")
        return soft_tokens(adapters, vectors, scales)

    monkeypatch.setattr(labeller, "soft_tokens_of_rows", fussy)
    monkeypatch.setattr(ShardWorker, "controls", lambda self: [])
    job = run(tmp_path / "run", settings())
    assert (job.progress.labelled, job.progress.failed) == (39, 1)
    assert job.first_failure() == "row 8: RuntimeError: kernel said no"

    def broken(adapters, vectors, scales):
        raise RuntimeError("no memory")

    monkeypatch.setattr(labeller, "soft_tokens_of_rows", broken)
    with pytest.raises(LabellingError, match=r"none of 3 vectors could be labelled: no memory"):
        run(tmp_path / "other", settings())


@pytest.mark.parametrize("change", [{"seed": 1}, {"max_new_tokens": 7}, {"scales": (2.0,)}])
def test_other_settings_are_another_run(settings, tmp_path, change):
    run(tmp_path / "run", settings(limit=3))
    (key,) = change
    with pytest.raises(ConfigError, match=rf"holds a run with {key} .*another --out"):
        run(tmp_path / "run", settings(limit=3, **change))
    run(tmp_path / "run", settings(limit=3, batch_size=50))  # only the speed


def test_a_folder_of_another_kind_is_refused(settings, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text('{"hidden_size": 3}')
    with pytest.raises(DataError, match="not a labelling run"):
        run(tmp_path / "run", settings())
    with pytest.raises(ConfigError, match="--out must name a folder"):
        run(tmp_path / "labels.jsonl", settings())


def test_the_labels_of_another_models_weights_are_not_mixed_in(settings, tmp_path, golden_dir):
    mine = tmp_path / "model"
    shutil.copytree(golden_dir / "model", mine)
    run(tmp_path / "run", settings(model=str(mine), limit=3))
    weights = load_file(mine / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 3
    save_file(weights, mine / "model.safetensors", {"format": "pt"})
    (tmp_path / "run/labels-00000.jsonl").unlink()
    with pytest.raises(ConfigError, match="labels of another model or prompt: .*embedding norm"):
        run(tmp_path / "run", settings(model=str(mine), limit=3))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (torch.ones(3, 47), r"width 47; the model .* has d_model 48"),
        (torch.ones(0, 48), "no numbers at all"),
    ],
)
def test_vectors_that_cannot_be_of_this_model_are_refused_before_anything_is_written(
    settings, tmp_path, vectors, message
):
    options = settings()
    save_file({"v": vectors}, tmp_path / "v.safetensors")
    with pytest.raises(DataError, match=message):
        run(tmp_path / "run", options)
    assert not (tmp_path / "run").exists()


def test_an_adapter_of_another_model_is_refused(settings, tmp_path, golden_dir):
    from selfie_adapters.adapters import create_adapter
    from selfie_adapters.model import FrozenModel, SoftPrompt, bind
    from tiny import golden_tokenizer, tiny_network

    narrow = create_adapter("scale_only", 32)
    narrow.save(tmp_path / "narrow.safetensors")
    with pytest.raises(AdapterError, match="width 32"):
        run(tmp_path / "run", settings(adapter=str(tmp_path / "narrow.safetensors")))
    # the right width, but bound to another model
    other = FrozenModel(tiny_network("llama"), golden_tokenizer(), "other")
    prompt = SoftPrompt.for_tokenizer(other.tokenizer).bind(other.tokenizer)
    wide = create_adapter("scale_only", 48)
    wide.binding = bind(other, prompt).model_copy(update={"d_model": 48})
    wide.save(tmp_path / "wide.safetensors")
    options = settings(adapter=str(tmp_path / "wide.safetensors"), limit=2)
    with pytest.raises(BindingError, match="another model"):
        run(tmp_path / "run", options)
    forced = options.model_copy(update={"ignore_binding": True})
    assert run(tmp_path / "run", forced).progress.complete


def test_zero_and_huge_vectors_are_labelled_or_marked(settings, tmp_path, golden_dir):
    options = settings(samples=1, temperature=0.0)
    direction = torch.randn(48, generator=torch.Generator().manual_seed(1))
    huge = direction / direction.norm() * 1e30
    save_file({"v": torch.stack([torch.zeros(48), huge, direction])}, tmp_path / "v.safetensors")
    run(tmp_path / "norm", options)
    zero, long, usual = rows(tmp_path / "norm")
    assert zero["gain"] == pytest.approx(0.0, abs=1e-3)
    assert long["raw"] == usual["raw"]
    raw = settings(
        adapter=str(golden_dir / "adapters/scalar_affine_raw.safetensors"),
        samples=1,
        temperature=0.0,
    )
    job = run(tmp_path / "raw", raw)
    assert job.progress.failed == 1
    assert "too long to be squared" in job.first_failure()


def test_means_are_subtracted_by_layer(settings, tmp_path, golden_dir):
    options = settings(limit=4, samples=1, temperature=0.0)
    mean = torch.randn(48, generator=torch.Generator().manual_seed(8))
    save_file({"layer_3": mean, "layer_4": mean * 2}, tmp_path / "means.safetensors")
    with_mean = options.model_copy(update={"mean": str(tmp_path / "means.safetensors")})
    with pytest.raises(ConfigError, match="mean of which layer.*--layer"):
        run(tmp_path / "none", with_mean)
    run(tmp_path / "mean", with_mean.model_copy(update={"layer": 3}))
    vectors = load_file(tmp_path / "v.safetensors")["v"]
    save_file({"v": vectors - mean}, tmp_path / "centered.safetensors")
    run(
        tmp_path / "hand",
        options.model_copy(update={"source": str(tmp_path / "centered.safetensors")}),
    )
    assert rows(tmp_path / "mean") == rows(tmp_path / "hand")


def test_a_mean_is_not_subtracted_twice(settings, tmp_path):
    metadata = {
        "dataset_name": "d",
        "filename": "v.safetensors",
        "layer": 3,
        "source": "s",
        "vector_type": "v",
        "mean_file": "d_mean.safetensors",
    }
    items = [{"index": 0, "labels": ["a"], "split": "train"}]
    path = tmp_path / "d.json"
    path.write_text(json.dumps([{"metadata": metadata, "vectors": items}]))
    save_file({"layer_3": torch.ones(48)}, tmp_path / "means.safetensors")
    options = settings(source=str(path), mean=str(tmp_path / "means.safetensors"))
    with pytest.raises(ConfigError, match=r"d@l3: .*d_mean\.safetensors\) subtracted already"):
        run(tmp_path / "run", options)


def test_without_an_adapter_the_vector_itself_is_the_soft_token(settings, tmp_path, golden_dir):
    from selfie_adapters.model import load_model
    from selfie_adapters.model.fingerprint import mean_embedding_norm

    options = settings(adapter=None, scales=(0.5, 2.0), samples=1, temperature=0.0)
    worker = ShardWorker(options, open_source(options))
    norm = mean_embedding_norm(load_model(golden_dir / "model", "float32"))
    vector = torch.randn(1, 48)
    soft = worker.labeller.soft_tokens(vector, 0.5)
    torch.testing.assert_close(soft, 0.5 * norm * vector / vector.norm(), rtol=1e-4, atol=1e-5)


def test_best_of_keeps_the_most_likely_one(settings, tmp_path):
    run(tmp_path / "all", settings(samples=5, limit=6))
    run(tmp_path / "best", settings(samples=1, best_of=5, limit=6))
    run(tmp_path / "why", settings(samples=1, best_of=5, limit=6, explain=True))
    everything = rows(tmp_path / "all")
    for kept in rows(tmp_path / "best"):
        rivals = [row for row in everything if row["index"] == kept["index"]]
        assert len(rivals) == 5
        assert kept["log_prob"] == max(row["log_prob"] for row in rivals)
        assert kept["rank"] == 0
        others = [
            r["log_prob"] for r in rivals if r["label"].casefold() != kept["label"].casefold()
        ]
        assert kept["margin"] == pytest.approx(kept["log_prob"] - max(others), abs=2e-4)
    why = rows(tmp_path / "why")
    assert [row["rank"] for row in why] == list(range(5)) * 6
    assert [row for row in why if row["rank"] == 0] == rows(tmp_path / "best")


def test_a_folder_does_not_mix_two_orders(settings, tmp_path):
    """Earlier versions ranked by the gain alone and did not state it in config.json."""
    folder, file = tmp_path / "run", tmp_path / "run/config.json"
    several = settings(samples=1, best_of=2, temperature=0.7, limit=3)
    run(folder, several)
    content = json.loads(file.read_text())
    assert content.pop("ranking") == "likelihood"
    run(folder, several)  # complete, and with the same order
    file.write_text(json.dumps(content))
    line = r"run holds labels ranked by gain, and this version ranks them by likelihood"
    with pytest.raises(ConfigError, match=line):
        run(folder, several)
    file.write_text(json.dumps(content | {"ranking": 3}))
    with pytest.raises(DataError, match=r"config\.json: not a labelling run's configuration"):
        run(folder, several)


def test_where_nothing_is_ranked_folders_of_earlier_versions_resume(settings, tmp_path):
    single = settings(samples=1, temperature=0.0, limit=3)
    run(tmp_path / "run", single)
    assert "ranking" not in json.loads((tmp_path / "run/config.json").read_text())
    before = rows(tmp_path / "run")
    run(tmp_path / "run", single)
    assert rows(tmp_path / "run") == before


def test_controls_are_measured_beside_the_run(settings, tmp_path):
    run(tmp_path / "run", settings(samples=1, temperature=0.0))
    found = json.loads((tmp_path / "run/controls.json").read_text())
    kinds = {row["kind"]: row for row in found}
    assert list(kinds) == ["vectors of this run", "zero", "random", "shuffled"]
    assert [row["vectors"] for row in found] == [16, 1, 16, 16]
    assert kinds["zero"]["gain"] == pytest.approx(0.0, abs=1e-5)
    # 40 vectors, every second one: their greedy labels are those of the run
    written = rows(tmp_path / "run")
    mean = sum(written[i]["gain"] for i in range(0, 32, 2)) / 16
    assert kinds["vectors of this run"]["gain"] == pytest.approx(mean, abs=1e-3)
    assert kinds["shuffled"]["gain"] < kinds["vectors of this run"]["gain"]


def test_shards_cover_every_position_once(tmp_path):
    cut = cut_into_shards(tmp_path, 20, 8)
    assert [(s.start, s.stop) for s in cut] == [(0, 8), (8, 16), (16, 20)]
    assert [len(s) for s in cut] == [8, 8, 4]


@pytest.mark.parametrize("name", ["labels-00000.jsonl", "labels-00003.jsonl.part"])
def test_labels_of_an_unknown_run_are_not_taken_over(settings, tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("")
    with pytest.raises(ConfigError, match=rf"{name} holds results, and config\.json"):
        run(tmp_path / "run", settings())
