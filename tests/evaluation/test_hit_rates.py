import json
import math

import pytest

from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.hit_rates import (
    ScoredLabel,
    mean_max_hit_rate,
    read_result_files,
)

CASES = {
    "generator": ("scores_generator.json", 1),
    "dataset_60_split60": ("scores_dataset_60.json", 6),
    "dataset_60_plain": ("scores_dataset_60.json", 1),
    "dataset_6x10": ("scores_dataset_6x10.json", 1),
}


@pytest.fixture
def scoring(golden_dir):
    return golden_dir.parent / "scoring"


@pytest.mark.parametrize("case", CASES)
def test_the_published_aggregation(scoring, case):
    file, split = CASES[case]
    wanted = json.loads((scoring / "scoring_expected.json").read_text())["mean_max_hit_rate"][case]
    found = mean_max_hit_rate(read_result_files([scoring / file]), split)
    assert list(found.per_latent.values()) == wanted["per_latent"]
    assert math.isclose(found.mean, wanted["mean"], rel_tol=1e-15)


def shard(path, rows, mode="label_dataset"):
    path.write_text(json.dumps({"evaluation_mode": mode, "evaluations": rows}))
    return path


def row(latent, *activations, label="x"):
    samples = [{"error": None, "per_token_activations": list(a)} for a in activations]
    return {"latent_index": latent, "label": label, "reward_samples": samples}


def test_shards_merge_and_equal_the_whole(scoring, tmp_path):
    whole = json.loads((scoring / "scores_generator.json").read_text())
    mode, rows = whole["evaluation_mode"], whole["evaluations"]
    parts = [shard(tmp_path / f"{i}.json", rows[i::3], mode) for i in range(3)]
    merged = mean_max_hit_rate(read_result_files(parts))
    alone = mean_max_hit_rate(read_result_files([scoring / "scores_generator.json"]))
    assert merged.per_latent == alone.per_latent
    assert math.isclose(merged.mean, alone.mean, rel_tol=1e-15)


def test_position_0_does_not_count_and_errors_leave_the_denominator(tmp_path):
    wrong = {"error": "cut off", "per_token_activations": None}
    rows = [row(3, [9.0, 0.0], [0.0, 1e-9], [], [5.0])]
    rows[0]["reward_samples"].append(wrong)
    (label,) = read_result_files([shard(tmp_path / "a.json", rows)])[3]
    assert label.hits == (False, True, False, False, None)
    assert label.score == 1 / 4


def test_a_latent_with_nothing_right_counts_as_zero():
    labels = {1: [ScoredLabel("a", (None, None))], 2: [ScoredLabel("b", (True,))], 3: []}
    assert mean_max_hit_rate(labels).per_latent == {1: 0.0, 2: 1.0, 3: 0.0}
    assert mean_max_hit_rate(labels).mean == 1 / 3


def test_hostile_files_are_named_with_the_place(tmp_path):
    with pytest.raises(DataError, match="no latents"):
        mean_max_hit_rate({})
    with pytest.raises(DataError, match="3 conversations cannot be split by 2"):
        mean_max_hit_rate({1: [ScoredLabel("a", (True, True, False))]}, split=2)
    (tmp_path / "text.json").write_text("no json")
    with pytest.raises(DataError, match=r"text\.json: not JSON"):
        read_result_files([tmp_path / "text.json"])
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match="evaluation_mode and evaluations"):
        read_result_files([tmp_path / "list.json"])
    with pytest.raises(DataError, match='Did you mean "label_dataset"'):
        read_result_files([shard(tmp_path / "m.json", [], "label_datasets")])
    with pytest.raises(DataError, match=r"evaluations\[0\]: not a row"):
        read_result_files([shard(tmp_path / "r.json", [{"label": "x"}])])
    broken = row(1)
    broken["reward_samples"] = [{"error": None, "per_token_activations": None}]
    with pytest.raises(DataError, match="has no activations"):
        read_result_files([shard(tmp_path / "n.json", [broken])])
    one, two = shard(tmp_path / "1.json", [row(7)]), shard(tmp_path / "2.json", [row(7)])
    with pytest.raises(DataError, match="latent 7 is in"):
        read_result_files([one, two])
    other = shard(tmp_path / "3.json", [], "label_generator")
    with pytest.raises(DataError, match="of mode label_dataset"):
        read_result_files([one, other])
