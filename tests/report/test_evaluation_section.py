"""Evaluations as sections of a page: controls, intervals, labels, and how they were made."""

from __future__ import annotations

import json

from run_folders import interval
from selfie_adapters.evaluation.base import find_protocol, protocol_names
from selfie_adapters.files.json_lines import write_jsonl
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
