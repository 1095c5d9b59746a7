"""Evaluations as sections of a page: controls, intervals, labels, and how they were made."""

from __future__ import annotations

import json

from run_folders import interval
from selfie_adapters.evaluation.base import find_protocol, protocol_names
from selfie_adapters.files.json_lines import write_jsonl
from selfie_adapters.output import EMPTY
from selfie_adapters.report import evaluation_section as section
from selfie_adapters.report.pieces import Facts, Gallery, Intervals, LabelTable, PageTable


def pieces_of(folder, results, kind):
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    found = section.evaluation_section(folder, "one", "labels-1").pieces
    return [piece for piece in found if isinstance(piece, kind)]


def scored(mean):
    content = {
        name: interval(mean)
        for name in (
            "best_of_1",
            "best_of_n_held_out",
            "false_positive_rate",
            "balanced_accuracy",
        )
    }
    return {
        "published": {"best_of_n": interval(mean)},
        "content": {"thresholds": [content], "auroc": interval(mean)},
    }


def recalls(condition, mean, meaning):
    return {
        "condition": condition,
        "meaning": meaning,
        "recall_at": {k: interval(mean) for k in ("1", "10", "100")},
        "mean_reciprocal_rank": interval(mean),
        "median_rank": 4.0,
    }


def test_intervals_are_known_by_names_that_results_state():
    recorded = {find_protocol(name).recorded_as or name for name in protocol_names()}
    assert section._INTERVALS.keys() <= recorded


def test_a_scoring_run_has_intervals_and_numbers_on_one_line(tmp_path):
    results = {
        "protocol": "generation scoring",
        "settings": {"scales": [1.0], "thresholds": [0.0], "force_sae": False, "prefix": ""},
        "conditions": {"trained": scored(0.75), "training": scored(0.9)},
    }
    (aurocs,) = pieces_of(tmp_path / "s", results, Intervals)
    assert [(row.condition, row.text, row.own) for row in aurocs.rows] == [
        ("trained", "0.75 [0.65, 0.85]", True),
        ("instrument check", "0.90 [0.80, 1.00]", False),
    ]
    (table,) = pieces_of(tmp_path / "s", results, PageTable)
    assert table.title
    assert table.rows[0].own
    assert {*table.rows[0].cells} == {"0.75 [0.65,\u00a00.85]"}
    (facts,) = pieces_of(tmp_path / "s", results, Facts)
    assert facts.rows["force sae"] == "no"
    assert "prefix" not in facts.rows


def conversation(maximum, **more):
    return {"content": [maximum, 0.0], "anywhere": [9.0, 9.0], **more}


def test_a_scoring_run_has_the_labels_of_its_leading_condition(tmp_path):
    results = {
        "protocol": "generation scoring",
        "settings": {"scales": [1.0], "thresholds": [2.0]},
        "conditions": {"trained": scored(0.75), "training": scored(0.9)},
    }
    of = {
        "zero": [{"text": "nothing", "scale": 1.0, "conversations": [conversation(0.0)]}],
        "trained": [
            {
                "text": "owl",
                "scale": 1.5,
                "conversations": [
                    conversation(3.0),
                    conversation(2.0),  # not above the threshold
                    conversation(9.0, error="cut off"),
                    conversation(2.5),
                ],
            },
            {"text": "", "scale": 3.0, "conversations": []},
            {"text": "tin", "scale": 6.0, "conversations": [conversation(0.0, error="cut off")]},
        ],
        "training": [{"text": "bird", "scale": None, "conversations": [conversation(3.0)]}],
    }
    (tmp_path / "s").mkdir()
    rows = [{"key": "negative:0", "noun": "muff", "conversation": conversation(0.0)}]
    rows += [{"key": f"{name}:7", "latent": 7, "labels": labels} for name, labels in of.items()]
    write_jsonl(tmp_path / "s/rows.jsonl", rows)
    (table,) = pieces_of(tmp_path / "s", results, LabelTable)
    assert table.has_given
    assert table.measure == "score"
    assert [(one.given, one.generated, one.detail) for one in table.first] == [
        ("bird", "owl", "score 0.67"),
        ("bird", EMPTY, "score 0.00"),
        ("bird", "tin", ""),
    ]


def test_seeds_of_one_recipe_are_one_estimate(tmp_path):
    conditions = [recalls(name, mean, "") for name, mean in (("a-0", 0.3), ("a-1", 0.5))]
    conditions += [recalls(f"a-{seed}: shuffled", mean, "") for seed, mean in ((0, 0.0), (1, 0.1))]
    over = interval(0.4) | {"low": 0.2, "high": 0.7}
    results = {
        "protocol": "retrieval",
        "settings": {"adapters": {"a-0": "x", "a-1": "y"}, "labels": {}, "vectors": "v"},
        "counts": {"topics": 90, "queries": 3},
        "conditions": [*conditions, recalls("cosine", 0.2, "")],
        "comparisons": [],
        "recipes": [
            {
                "recipe": "a",
                "adapters": ["a-0", "a-1"],
                "recall_at_1": over,
                "recall_at_10": over,
                "mean_reciprocal_rank": over,
                "by_seed": [0.3, 0.5],
                "comparisons": [],
            }
        ],
    }
    (found,) = pieces_of(tmp_path / "r", results, Intervals)
    assert [(one.condition, one.text, one.own) for one in found.rows] == [
        ("a, 2 seeds", "0.40 [0.20, 0.70]", True),
        ("a: shuffled, 2 seeds", "0.05", False),
        ("cosine", "0.20 [0.10, 0.30]", False),
    ]
    (table, *_) = pieces_of(tmp_path / "r", results, PageTable)
    assert [(row.name, row.cells[0], row.own) for row in table.rows] == [
        ("a, 2 seeds", "40.0 [20.0,\u00a070.0] (30.0–50.0)", True),
        ("a: shuffled, 2 seeds", "5.0 (0.0–10.0)", False),
        ("cosine", "20.0 [10.0,\u00a030.0]", False),
    ]


def test_taboo_shows_each_description_and_the_worst(tmp_path):
    path = "/home/me/runs/one/adapter_final.safetensors"
    results = {
        "protocol": "taboo",
        "settings": {"retrieval": "r"},
        "counts": {"topics": 90, "asked": 3},
        "answers_with_the_name": 1,
        "conditions": [
            recalls("description", 0.5, "of the topic"),
            recalls("plain", 0.4, f"adapter {path}"),
        ],
        "comparisons": [],
    }
    rows = [
        {"condition": name, "topic": f"topic {i}", "label": f"{name} {i}", "rank": rank}
        | {"nearest": [{"topic": "thunder"}]}
        for name in ("description", "plain")
        for i, rank in enumerate((1, 10, 11))
    ]
    (tmp_path / "t").mkdir()
    write_jsonl(tmp_path / "t/labels.jsonl", rows)
    (recall,) = pieces_of(tmp_path / "t", results, Intervals)
    assert [row.own for row in recall.rows] == [True, False]
    assert recall.rows[1].meaning == "adapter …/one/adapter_final.safetensors"
    (labels,) = pieces_of(tmp_path / "t", results, LabelTable)
    assert [(pair.given, pair.generated) for pair in labels.first] == [
        (f"topic {i}", f"description {i}") for i in range(3)
    ]
    (failures,) = pieces_of(tmp_path / "t", results, Gallery)  # "among the first 10" is no failure
    assert [(one.given, one.detail) for one in failures.pairs] == [
        ("topic 2", "rank 11; nearest: thunder")
    ]
