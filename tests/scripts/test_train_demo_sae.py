"""Labels are counted by hand; the whole script runs on a random model and a page of text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from demo_sae_labels import (
    TokenSpan,
    family,
    label_of,
    labels_of,
    look_alike,
    same_stem,
    split_of_labels,
    word_states,
    words_at,
)

ROOT = Path(__file__).parents[2]
TEXT = "The king's crown (of gold), 12 kings"


@pytest.mark.parametrize(
    ("start", "stop", "word"),
    [
        (4, 8, ""),  # the word continues
        (8, 10, "king's"),
        (3, 10, "king's"),
        (18, 20, "of"),
        (27, 28, ""),
        (28, 30, ""),
        (31, 35, ""),
        (31, 36, "kings"),
    ],
)
def test_the_word_that_a_token_ends(start, stop, word):
    assert words_at([TokenSpan(0, start, stop)], [TEXT]) == [word]


def test_words_of_several_texts():
    places = [
        TokenSpan(0, 0, 3),
        TokenSpan(0, 3, 10),
        TokenSpan(1, 0, 2),
        TokenSpan(1, 2, 4),
        TokenSpan(2, 0, 3),
    ]
    assert words_at(places, [TEXT, "owls", "tea"]) == ["the", "king's", "", "owls", "tea"]


@pytest.mark.parametrize(
    "forms",
    [
        ("owl", "owls", "owl's"),
        ("take", "taking", "takes"),
        ("stop", "stopped", "stopping"),
        ("city", "cities"),
        ("bake", "baked", "baker"),
    ],
)
def test_forms_of_a_word_are_one_family(forms):
    assert len({family(word) for word in forms}) == 1


def test_other_words_are_other_families():
    words = ["owl", "king", "kin", "bee", "beer", "city", "sing", "red", "bus"]
    assert len({family(word) for word in words}) == len(words)


def test_words_that_share_only_letters():
    assert look_alike("flambeau", "flaring")
    assert look_alike("station", "lotion")
    assert not look_alike("king", "queen")
    assert not look_alike("violin", "viola")  # both are stringed instruments


def test_derived_words_are_counted_together():
    assert same_stem("electric", "electrical")
    assert same_stem("important", "importance")
    assert not same_stem("flambeau", "flaring")
    assert not same_stem("king", "kingdom")
    fired = ["electric", "electrical", "electrical", "electricity", "lamp", "lamp"]
    assert label_of(fired, ["electric", "lamp"], set()) == "electrical, lamp"


def test_a_label_is_what_fires_and_what_the_row_writes():
    fired = ["crown", "king", "of", "kings", "ox", "throne", "king", "crown", "gold"]
    written = ["king", "crown", "throne", "queen"]
    assert label_of(fired, written, {"of"}) == "king, crown"  # gold and throne are there once
    assert label_of(fired, ["crowns", "queen"], {"of"}) is None  # twice only
    assert label_of(fired, ["kings"], {"of"}) == "king"  # in the form that fires most
    assert label_of([*fired, *["of"] * 8], written, {"of"}) == "king, crown"  # 7 of 17 speak
    assert label_of([*fired, *["of"] * 9], written, {"of"}) is None  # 7 of 18
    few = ["owl"] * 3 + ["x" * n for n in range(3, 13)]
    assert label_of(few, ["owl"], set()) is None  # 3 of 13
    assert label_of(["of"] * 20, written, {"of"}) is None


def test_of_words_that_only_look_alike_one_is_kept_if_it_is_enough():
    alike = ["flambeau", "flaring", "flanks", "flatter"] * 3
    written = ["flambeau", "flaring", "flanks", "flatter"]
    assert label_of([*alike, "flea"], written, set()) is None  # 3 of 13
    assert label_of([*["flambeau"] * 3, *alike], written, set()) == "flambeau"


def test_the_mean_state_of_a_word_is_centered():
    words = ["owl", "tea", "", "owl"] * 5 + ["rain"] * 3
    states = torch.zeros(len(words), 3)
    states[:, 0] = torch.tensor([2.0 * (word == "owl") for word in words])
    states[:, 1] = torch.tensor([3.0 * (word == "tea") for word in words])
    states[:, 2] = 7.0
    known, found = word_states(states.half(), words)
    assert known == ["owl", "tea"]  # rain occurs three times
    mean = states.mean(dim=0)
    expected = torch.stack([torch.tensor([2.0, 0, 7]) - mean, torch.tensor([0, 3.0, 7]) - mean])
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True))


def test_latents_that_fire_too_often_or_too_seldom_have_no_label():
    words = ["tea"] * 20 + ["owl"] * 20
    states = torch.zeros(len(words), 2)
    states[:20, 0] = states[20:, 1] = 1.0
    rows = torch.tensor([[1.0, -1.0], [1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [0.0, 1.0]])
    strongest = [[*range(20)], [*range(20)], [*range(9)], [*range(20)], [*range(20, 40)]]
    density = torch.tensor([0.02, 0.03, 0.01, 0.01, 0.01])
    # 1 fires too often, 2 too seldom; the row of 3 writes owls where it fires on tea.
    found = labels_of(strongest, density, rows, states, words, set(), nearest=1)
    assert found == {0: "tea", 4: "owl"}


def test_labels_that_share_a_word_are_in_one_split():
    labels = {i: f"word{chr(97 + i // 2)}x" for i in range(40)}
    labels |= {40: "owl, tea", 41: "teas, rain", 42: "rain"}
    shares = {"train": 0.6, "val": 0.15, "test": 0.25}
    splits = split_of_labels(labels, shares, 0)
    assert splits.keys() == labels.keys()
    assert len({splits[40], splits[41], splits[42]}) == 1
    assert all(splits[i] == splits[i + 1] for i in range(0, 40, 2))
    counts = [sum(one == split for one in splits.values()) / 43 for split in shares]
    assert counts == pytest.approx([0.6, 0.15, 0.25], abs=0.05)


@pytest.mark.slow
def test_the_script_on_a_random_model(tmp_path, golden_dir):
    (tmp_path / "texts/sotu").mkdir(parents=True)
    page = "Rain fell on the hill and the old king drank his tea while owls sang. " * 60
    (tmp_path / "texts/book.txt").write_text(page)
    (tmp_path / "texts/sotu/1900.txt").write_text(page.replace("king", "congress"))
    options = ["--model", golden_dir / "model", "--layer", 1, "--tokens", 9000, "--epochs", 8]
    options += ["--model-dtype", "float32", "--passages", 0]
    options += ["--batch", 64, "--d-sae", 256, "--k", 1, "--out", tmp_path / "sae"]
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "scripts/train_demo_sae.py",
            tmp_path / "texts",
            *map(str, options),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "sae/card.json").read_text())
    assert 0 < card["held_out"]["explained_variance"] < 1
    assert 0 < card["held_out"]["l0"] < 4
    assert (tmp_path / "sae/labels.json").exists() == (card["labelled"] > 1)
    passages = (tmp_path / "sae/passages.jsonl").read_text()
    assert "<|im_start|>" not in passages
    assert 0 < passages.count("\n") < 30  # a tenth of the texts
    config = json.loads((tmp_path / "sae/cfg.json").read_text())
    assert (config["architecture"], config["d_sae"], config["dtype"]) == (
        "jumprelu",
        256,
        "float16",
    )
    assert config["metadata"]["hook_name"] == "blocks.1.hook_resid_post"
