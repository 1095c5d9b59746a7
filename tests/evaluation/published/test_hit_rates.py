import json
import math

import pytest

from selfie_adapters.errors import DataError
from selfie_adapters.evaluation.published.hit_rates import (
    ScoredLabel,
    mean_max_hit_rate,
    merged,
    read_result_file,
)

CASES = {
    "generator": ("scores_generator.json", 1),
    "dataset_60_split60": ("scores_dataset_60.json", 6),
    "dataset_60_plain": ("scores_dataset_60.json", 1),
    "dataset_6x10": ("scores_dataset_6x10.json", 1),
}


def read_result_files(paths):
    return merged([read_result_file(path) for path in paths])


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
    joined = mean_max_hit_rate(read_result_files(parts))
    alone = mean_max_hit_rate(read_result_files([scoring / "scores_generator.json"]))
    assert joined.per_latent == alone.per_latent
    assert math.isclose(joined.mean, alone.mean, rel_tol=1e-15)


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
    (tmp_path / "text.json").write_text("no json")
    with pytest.raises(DataError, match=r"text\.json, line 1, column \d+: not JSON"):
        read_result_files([tmp_path / "text.json"])
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(
        DataError, match=r"list\.json: expected `object`.*evaluation_mode and evaluations"
    ):
        read_result_files([tmp_path / "list.json"])
    with pytest.raises(DataError, match='Did you mean "label_dataset"'):
        read_result_files([shard(tmp_path / "m.json", [], "label_datasets")])
    with pytest.raises(
        DataError, match=r"missing required field `latent_index` - at `\$\.evaluations\[0\]`"
    ):
        read_result_files([shard(tmp_path / "r.json", [{"label": "x"}])])
    broken = row(1)
    broken["reward_samples"] = [{"error": None, "per_token_activations": None}]
    with pytest.raises(
        DataError, match=r"evaluations\[0\], label 'x', reward_samples\[0\]: per_token_activations"
    ):
        read_result_files([shard(tmp_path / "n.json", [broken])])
    rows = [{"latent_index": 7, "scale_evaluations": []}]
    one, two = (shard(tmp_path / f"{i}.json", rows, "label_generator") for i in (1, 2))
    with pytest.raises(DataError, match=r"latent 7 is in .*1\.json and in .*2\.json"):
        read_result_files([one, two])
    given = shard(tmp_path / "4.json", [row(7)])
    with pytest.raises(DataError, match="of mode label_dataset"):
        read_result_files([one, given])
    with pytest.raises(DataError, match=r"evaluations\[0\]: neither label nor scale_evaluations"):
        read_result_files([shard(tmp_path / "5.json", [{"latent_index": 1}])])
    (tmp_path / "6.json").write_text('{"evaluation_mode": "label_dataset"}')
    with pytest.raises(DataError, match="there are no evaluations"):
        read_result_files([tmp_path / "6.json"])


def test_groups_of_ten_are_labels_of_their_own():
    """25 conversations: groups of 10, 10, 5, and three that are missing; then more than 60."""
    hits = (True,) * 2 + (False,) * 8 + (True,) * 5 + (False,) * 5
    hits += (True, None, False, False, True)
    assert mean_max_hit_rate({1: [ScoredLabel("a", hits)]}, 6).mean == 0.5
    assert mean_max_hit_rate({1: [ScoredLabel("a", hits[:10])]}, 6).mean == 0.2
    late = (False,) * 60 + (True,) * 10
    assert mean_max_hit_rate({1: [ScoredLabel("a", late)]}, 6).mean == 0.0
    with pytest.raises(ValueError, match="at least 1"):
        mean_max_hit_rate({1: []}, 0)


def test_one_latents_labels_may_lie_in_two_shards(tmp_path):
    """Shards of label_dataset count labels, so a boundary may fall between two of one latent."""
    hit, miss = [0.0, 1.0], [0.0, 0.0]
    one = shard(tmp_path / "1.json", [row(7, miss, label="a")])
    two = shard(tmp_path / "2.json", [row(7, hit, miss, label="b"), row(8, hit, label="c")])
    found = read_result_files([one, two])
    assert [label.text for label in found[7]] == ["a", "b"]
    assert mean_max_hit_rate(found).per_latent == {7: 0.5, 8: 1.0}
    again = shard(tmp_path / "again.json", [row(7, hit, miss, label="b")])
    with pytest.raises(DataError, match="latent 7 is in"):
        read_result_files([two, again])


def test_merged_and_generation_only_files_are_read(tmp_path):
    found = read_result_file(shard(tmp_path / "m.json", [row(7, [0, 1])], "label_dataset_merged"))
    assert found.mode == "label_dataset"
    assert found.shard is None
    only = {"evaluation_mode": "label_generation_only", "shard_id": 0, "config": {"b": 1, "a": 2}}
    only |= {"generated_labels_file": "labels.json", "num_labels_generated": 5}
    (tmp_path / "o.json").write_text(json.dumps(only))
    found = read_result_file(tmp_path / "o.json")
    assert (found.latents, found.shard, found.label_count) == ({}, 0, 5)
    assert found.config == '{"a":2,"b":1}'
    assert found.labels_file == "labels.json"


def test_numbers_that_are_not_finite_and_long_lists_are_read(tmp_path):
    """Python writes NaN into JSON; a list of zeros takes six times its text as Python objects."""
    document = '{"evaluation_mode": "label_dataset", "evaluations": [%s]}'
    text = '{"latent_index": 1, "label": "a", "reward_samples": [{"per_token_activations": [%s]}]}'
    for name, values, hit in (
        ("long.json", "9, " + "0.0, " * 5_000_000 + "0.5", True),
        ("nan.json", "9, NaN, 0.0, -Infinity", False),
    ):
        (tmp_path / name).write_text(document % (text % values))
        (label,) = read_result_file(tmp_path / name).latents[1]
        assert label.hits == (hit,)


@pytest.mark.parametrize("size", [0, 1, 40, 400, 3000])
def test_a_torn_file_is_named_with_line_and_column(scoring, tmp_path, size):
    (tmp_path / "torn.json").write_bytes((scoring / "scores_generator.json").read_bytes()[:size])
    with pytest.raises(DataError, match=r"torn\.json.*(empty|line 1, column)"):
        read_result_file(tmp_path / "torn.json")


@pytest.mark.parametrize(
    ("config", "activations", "message"),
    [
        (b'{"a": "\xba"}', b"[1]", "config, line 1, column 8: not UTF-8"),
        (b"null", b'[1, "\xba"]', "per_token_activations is not a list of numbers"),
    ],
)
def test_text_that_is_no_utf_8_is_refused_where_it_is(config, activations, message, tmp_path):
    row = b'{"latent_index": 1, "label": "a", "reward_samples": [{"per_token_activations": %s}]}'
    document = b'{"evaluation_mode": "label_dataset", "config": %s, "evaluations": [' + row + b"]}"
    (tmp_path / "x.json").write_bytes(document % (config, activations))
    with pytest.raises(DataError, match=f"x.json.*{message}"):
        read_result_file(tmp_path / "x.json")
