"""Labels are counted by hand; the whole script runs on a random model and a page of text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from demo_sae_labels import Place, label_of, labels_of, word_at  # noqa: E402

TEXT = "The king's crown (of gold), 12 kings"


@pytest.mark.parametrize(
    ("start", "stop", "word"),
    [
        (4, 8, "king's"),
        (6, 7, "king's"),
        (3, 8, "king's"),
        (18, 20, "of"),
        (27, 28, ""),
        (28, 30, ""),
    ],
)
def test_the_word_a_token_is_of(start, stop, word):
    assert word_at(TEXT, Place(0, start, stop)) == word


def test_a_label_is_the_words_that_come_back():
    words = ["crown", "king", "of", "king", "ox", "throne", "king", "crown", "gold"]
    assert label_of(words, {"of"}) == "king, crown"  # gold and throne are there once
    assert label_of([*words, *["of"] * 5], {"of"}) == "king, crown"  # 7 of 14 say something
    assert label_of([*words, *["of"] * 6], {"of"}) is None  # 7 of 15
    assert label_of(["remake", "reborn", "rewrite", "redo"] * 2, set()) is None  # none three times
    assert label_of(["of"] * 20, {"of"}) is None


def test_latents_that_fire_too_often_or_too_seldom_have_no_label():
    words = [f"owl{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(650)]
    texts = [" ".join(words) + " tea" * 20 + " rain" * 400]
    places, at = [], 0
    for word in texts[0].split():
        places.append(Place(0, at, at + len(word)))
        at += len(word) + 1
    activations = torch.zeros(len(places), 4)
    activations[650:670, 0] = 1.0  # tea: 20 of 1,070 tokens
    activations[650:660, 1] = 1.0  # 10 tokens
    activations[:100, 2] = 1.0  # 9 % of the tokens
    assert labels_of(activations, places, [*texts, " ".join(words) * 30])[0] == "tea"
    assert set(labels_of(activations, places, [*texts, " ".join(words) * 30])) == {0}


@pytest.mark.slow
def test_the_script_on_a_random_model(tmp_path, golden_dir):
    (tmp_path / "texts/sotu").mkdir(parents=True)
    page = "Rain fell on the hill and the old king drank his tea while owls sang. " * 60
    (tmp_path / "texts/book.txt").write_text(page)
    (tmp_path / "texts/sotu/1900.txt").write_text(page.replace("king", "congress"))
    options = ["--model", golden_dir / "model", "--layer", 1, "--tokens", 9000, "--epochs", 8]
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
    assert card["labelled"] < 2  # one page has no words that are rare
    assert not (tmp_path / "sae/labels.json").exists()
    config = json.loads((tmp_path / "sae/cfg.json").read_text())
    assert (config["architecture"], config["d_sae"], config["dtype"]) == (
        "jumprelu",
        256,
        "float16",
    )
    assert config["metadata"]["hook_name"] == "blocks.1.hook_resid_post"
