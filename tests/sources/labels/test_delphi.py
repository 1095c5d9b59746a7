"""Explanations and scores of delphi."""

from __future__ import annotations

import json

import pytest

from selfie_adapters.errors import DataError, MissingFileError
from selfie_adapters.sources.labels.delphi import read_delphi_scores
from selfie_adapters.sources.labels.files import read_label_file


@pytest.fixture
def results(tmp_path):
    """results/ as delphi leaves it, for two hookpoints."""
    explanations = tmp_path / "explanations"
    explanations.mkdir()
    for name, text in {
        "layers.5_latent3": "words about owls",
        "layers.5_latent12": " bees ",
        "layers.5_latent20": "",
        "layers.11_latent3": "other",
    }.items():
        (explanations / f"{name}.txt").write_text(json.dumps(text))
    (explanations / "notes.txt.bak").write_text("not one of them")
    scores = tmp_path / "scores/fuzz"
    scores.mkdir(parents=True)
    # 2 of 4 activating and 3 of 4 other examples are predicted right: (0.5 + 0.75) / 2
    examples = [(True, True), (True, 0.9), (True, False), (True, 0.1)]
    examples += [(False, False), (False, False), (False, 0.2), (False, True), (False, None)]
    rows = [{"activating": a, "prediction": p, "str_tokens": ["x"]} for a, p in examples]
    (scores / "layers.5_latent3.txt").write_text(json.dumps(rows))
    (scores / "layers.5_latent12.txt").write_text("[]")
    return tmp_path


def test_explanations_of_one_hookpoint_are_labels(results):
    labels = read_label_file(results / "explanations/layers.5")
    assert labels.labels == {3: ["words about owls"], 12: ["bees"]}
    assert labels.origin == {"labels_from": "delphi", "hookpoint": "layers.5"}
    assert labels.report == [
        "2 explanations of delphi",
        "1 empty explanations, dropped",
        "scored by fuzz: 1 latents, mean balanced accuracy 0.625",
    ]


def test_a_folder_of_several_hookpoints_lists_them(results):
    with pytest.raises(DataError, match=r"2 hookpoints\. Give one: .*layers\.11, .*layers\.5"):
        read_label_file(results / "explanations")
    (results / "explanations/layers.11_latent3.txt").unlink()
    assert len(read_label_file(results / "explanations").labels) == 2
    with pytest.raises(MissingFileError):
        read_label_file(results / "explanations/layers.7")


def test_scores_are_balanced_accuracies(results):
    assert read_delphi_scores(results / "scores", "layers.5") == {"fuzz": {3: 0.625}}
    assert read_delphi_scores(results / "scores", "layers.11") == {}


def test_plain_numbers_name_latents_too(tmp_path):
    (tmp_path / "7.txt").write_text('"owl"')
    (tmp_path / "feature9.json").write_text('"bee"')
    (tmp_path / "latent7.txt").write_text('"again"')
    with pytest.raises(DataError, match="occurs twice"):
        read_label_file(tmp_path)
    (tmp_path / "latent7.txt").unlink()
    assert read_label_file(tmp_path).labels == {7: ["owl"], 9: ["bee"]}


@pytest.mark.parametrize("content", [b"", b"[1]", b"owl", b'"a', b"\xff\xfe", b"3", b"[" * 9999])
def test_what_is_no_explanation_is_named(content, results):
    (results / "explanations/layers.5_latent3.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"layers\.5_latent3\.txt"):
        read_label_file(results / "explanations/layers.5")


@pytest.mark.parametrize(
    "content",
    ["{}", "[1]", '[{"activating": "yes", "prediction": true}]', "[",
     '[{"activating": true, "prediction": 7}]', '[{"activating": true, "prediction": NaN}]'],
)  # fmt: skip
def test_what_is_no_score_is_named(content, results):
    (results / "scores/fuzz/layers.5_latent3.txt").write_text(content)
    with pytest.raises(DataError, match=r"fuzz/layers\.5_latent3\.txt"):
        read_label_file(results / "explanations/layers.5")


def test_an_empty_folder_is_no_source_of_labels(tmp_path):
    with pytest.raises(DataError, match="no explanations"):
        read_label_file(tmp_path)
