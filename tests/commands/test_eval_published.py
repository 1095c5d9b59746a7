import json

import numpy as np
import pytest

from selfie_adapters.cli import main
from selfie_adapters.commands import eval_published

TITLES = ["owl", "tea", "king", "rain"]


class Letters:
    """An embedder of single letters: a text's vector counts its letters."""

    name = "letters"
    digest = "letters"

    def __init__(self, name="letters", device=None):
        self.asked = name

    def embed(self, texts):
        rows = np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts])
        norms = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return (rows / norms).astype(np.float32)


@pytest.fixture(autouse=True)
def embedder(monkeypatch):
    monkeypatch.setattr(eval_published, "SentenceEmbedder", Letters)


@pytest.fixture
def golden(golden_dir):
    return golden_dir.parent / "scoring"


@pytest.fixture
def selfie(capsys):
    def selfie(*arguments, code=0):
        ended = 0
        try:
            main(["eval", "published", *map(str, arguments)])
        except SystemExit as end:
            ended = end.code or 0
        said = capsys.readouterr()
        assert ended == code, said.err
        return said.err if code else said.out

    return selfie


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def test_the_golden_numbers_come_out_of_one_command(selfie, golden):
    wanted = json.loads((golden / "scoring_expected.json").read_text())["mean_max_hit_rate"]
    names = ("generator", "dataset_60", "dataset_6x10")
    found = rows(selfie(*(golden / f"scores_{name}.json" for name in names), "--json"))
    for name, row in zip(("generator", "dataset_60_plain", "dataset_6x10"), found, strict=True):
        assert row["mean_max_hit_rate"] == pytest.approx(wanted[name]["mean"], rel=1e-15)
        assert list(row["per_latent"].values()) == wanted[name]["per_latent"]
        assert row["low"] <= row["mean_max_hit_rate"] <= row["high"]
    (row,) = rows(selfie(golden / "scores_dataset_60.json", "--split-60", "--json"))
    assert row["mean_max_hit_rate"] == pytest.approx(
        wanted["dataset_60_split60"]["mean"], rel=1e-15
    )
    shown = selfie(golden / "scores_dataset_60.json", "--split-60")
    assert f"{wanted['dataset_60_split60']['mean']:.6f}" in shown
    error = selfie(golden / "scores_generator.json", "--split-60", code=1)
    assert "of mode label_generator" in error


def shards(golden, tmp_path, count, **more):
    """The golden generator file in `count` shards, as a cloud run leaves them."""
    whole = json.loads((golden / "scores_generator.json").read_text())
    size = -(-len(whole["evaluations"]) // count)
    for i in range(count):
        yield write(
            tmp_path / f"eval_results_shard_{i:03d}_of_{count:03d}_r.json",
            whole
            | {"shard_id": i, "config": {"run_id": "r"} | more}
            | {"evaluations": whole["evaluations"][i * size : (i + 1) * size]},
        )


def test_shards_of_one_evaluation_are_merged(selfie, golden, tmp_path):
    wanted = json.loads((golden / "scoring_expected.json").read_text())["mean_max_hit_rate"]
    files = list(shards(golden, tmp_path, 3))
    (row,) = rows(selfie(*reversed(files), "--json"))
    assert row["mean_max_hit_rate"] == pytest.approx(wanted["generator"]["mean"], rel=1e-15)
    assert row["latents"] == 12
    assert row["files"] == [str(file) for file in files]
    (row,) = rows(selfie(*files[:2], "--json"))
    assert row["missing_shards"] == 1
    assert "1 shards of its evaluation are not given" in selfie(*files[:2])
    error = selfie(files[0], files[0], code=1)
    assert "are both shard 0 of one evaluation" in error
    (tmp_path / "other").mkdir()
    other = list(shards(golden, tmp_path / "other", 3, run_id="s"))
    assert len(rows(selfie(*files, *other, "--json"))) == 2


def labels_file(tmp_path, topics=None):
    """Eight labels at two scales; those at scale 1 are the titles, at 2 the next one's."""
    written = [
        {"latent_index": i, "label": TITLES[(i + shift) % 4], "scale": scale, "label_index": 0}
        for i in range(4)
        for shift, scale in ((0, 1.0), (1, 2.0))
    ]
    metadata = {"dataset_name": "x/fifty-thousand-things", "layer": 1}
    document = {"metadata": metadata, "generated_labels": written}
    return write(tmp_path / "generated_labels_things_layer1_shard000_r.json", document)


@pytest.fixture
def topics(tmp_path):
    lines = [json.dumps({"name": title, "labels": [title]}) for title in TITLES]
    (tmp_path / "topics.jsonl").write_text("\n".join(lines))
    return tmp_path / "topics.jsonl"


def test_labels_with_metadata_are_looked_up(selfie, tmp_path, topics):
    plain = labels_file(tmp_path)
    about = [{"original_layer": 3, "original_global_index": i, "split": "val"} for i in range(3)]
    metadata = write(tmp_path / "metadata.json", about)
    # what the published program makes of both: the fourth label is beyond the list
    enriched = [
        {
            "combined_index": row["latent_index"],
            "original_global_index": row["latent_index"],
            "original_local_val_index": row["latent_index"],
            "original_layer": 3,
            "split": "val",
            "label": row["label"],
            "scale": row["scale"],
            "label_index": 0,
        }
        for row in json.loads(plain.read_text())["generated_labels"]
        if row["latent_index"] < 3
    ]
    joined = write(
        tmp_path / "joined.json", {"metadata": {}, "enriched_labels": enriched, "num_labels": 6}
    )
    for arguments in ((joined,), (plain, "--metadata", metadata)):
        found = rows(selfie(*arguments, "--topics", topics, "--index", "title_only", "--json"))
        by_scale = {row["scale"]: row for row in found}
        assert by_scale[1.0]["recall_at"]["1"]["mean"] == 1.0
        assert by_scale[1.0]["queries"] == 3
        # "tea" (t, e, a) for owl: tea 1; rain 1/√12; king, owl 0: rank 3 by strictly better ones.
        # "king" for tea: king 1, rain 1/2, tea 0, owl 0: 3. "rain" for king: rain 1, king 1/2: 2.
        ranks = [3, 3, 2]
        assert by_scale[2.0]["mean_reciprocal_rank"]["mean"] == pytest.approx(
            sum(1 / rank for rank in ranks) / 3
        )
    shown = selfie(joined, "--topics", topics, "--index", "title")
    assert "scale 1" in shown
    assert "scale 2" in shown
    (row,) = rows(selfie(joined, "--topics", topics, "--scales", "2", "--json"))
    assert row["scale"] == 2.0
    assert "no label at scale 3" in selfie(joined, "--topics", topics, "--scales", "3", code=1)
    assert "--metadata" in selfie(plain, "--topics", topics, code=1)
    assert 'Did you mean "title_only"' in selfie(joined, "--index", "titel_only", code=1)
    enriched[0]["original_global_index"] = 4
    write(joined, {"enriched_labels": enriched})
    assert "original_global_index is 4; there are 4" in selfie(joined, "--topics", topics, code=1)


def test_labels_that_were_only_written_are_counted(selfie, tmp_path):
    plain = labels_file(tmp_path)
    only = {"evaluation_mode": "label_generation_only", "generated_labels_file": plain.name}
    result = write(tmp_path / "eval_results_layer_1_r.json", only)
    counted, listed = rows(selfie(result, plain, "--json"))
    assert counted["labels"] == 8
    assert listed["labels"] == 8
    assert listed["scales"] == [1.0, 2.0]
    shown = selfie(result, plain)
    assert "8 labels, no conversations to score" in shown
    assert "8 labels of 4 latents at scales 1, 2" in shown


def test_retrieval_results_are_printed_and_recomputed(selfie, tmp_path):
    scale = {"n_labels": 4, "recalls": {"1": 0.5, "10": 1.0}, "mrr": 0.7, "mean_margin": -0.1}
    summary = write(tmp_path / "retrieval_eval_summary.json", {"results_by_scale": {"2.0": scale}})
    ranked = write(tmp_path / "per_label.json", [{"label": "a", "rank": r} for r in (1, 4, 120)])
    one, two = rows(selfie(summary, ranked, "--json"))
    assert (one["name"], one["labels"], one["mean_reciprocal_rank"]) == ("scale 2.0", 4, 0.7)
    assert one["recall_at"] == {"1": 0.5, "10": 1.0}
    assert two["mean_reciprocal_rank"] == pytest.approx((1 + 1 / 4 + 1 / 120) / 3)
    assert two["recall_at"]["5"] == two["recall_at"]["100"] == pytest.approx(2 / 3)
    assert "recall @1 50.00 %" in selfie(summary)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("{", "not JSON"),
        ("[]", "found an empty list"),
        ("[1]", "expected `object`"),
        ('{"a": 1}', "found the keys a"),
        ('{"evaluation_mode": 3}', "expected `str`, got `int`"),
        ('{"evaluation_mode": "label_dataset", "evaluations": []}', "no latents"),
        ('{"generated_labels": [{"label": 1}]}', "$.generated_labels[0]"),
        ('{"results_by_scale": {"1": {"n_labels": 1, "recalls": {"x": 1}, "mrr": 1}}}', '"x"'),
        ('[{"rank": 0}]', "rank is 0"),
        ('{"evaluation_mode": "\udcff"}', "UTF-8"),
    ],
)
def test_damaged_files_are_one_line(selfie, tmp_path, content, message):
    file = tmp_path / "file.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    error = selfie(file, code=1)
    assert "file.json" in error
    assert message in error
    assert "Traceback" not in error
    assert "no such file" in selfie(tmp_path / "none.json", code=1)
    assert "at least one file" in selfie(code=1)
