"""Readers of states that need no adapter, and the spelling control, with answers placed by hand."""

from __future__ import annotations

import json
import string

import numpy as np
import pytest
import torch

from selfie_adapters.config.evaluation.bridge import BridgeSettings
from selfie_adapters.dataset import Item, Section, VectorLabelDataset, load_dataset, save_dataset
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.baselines import RidgeProbe, TokenCosine
from selfie_adapters.evaluation.bridge.probes import BlockProbes
from selfie_adapters.evaluation.bridge.protocol import Bridge
from selfie_adapters.evaluation.bridge.readers import TokenCellReader
from selfie_adapters.evaluation.bridge.reading import plan_question
from selfie_adapters.evaluation.bridge.results import summarize
from selfie_adapters.evaluation.bridge.targets import ANSWER, BRIDGE, ENTITY, EntityTarget, Targets
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.sources.twohop import Entity, TwoHopQuestion

LETTERS = list(string.ascii_lowercase)


def question(uid, bridge, prompt="A sea of ab is", e1="ab", answer="yonder", category=""):
    names = bridge if isinstance(bridge, tuple) else (bridge,)
    return TwoHopQuestion(
        uid, category, e1, Entity(names[0], names), Entity(answer, (answer,)), f"ask {uid}", prompt
    )


@pytest.fixture(scope="module")
def letters(model):
    """[26, d]: mean embedding of a space and a letter, the tokens of the letter in a sentence."""
    table, vocabulary = model.network.get_input_embeddings().weight, model.tokenizer.get_vocab()
    rows = [table.detach()[[vocabulary["Ġ"], vocabulary[one]]].mean(0) for one in LETTERS]
    return torch.stack(rows)


def turned(letters, seed):
    """The letters' embeddings, turned by a rotation of its own."""
    generator = torch.Generator().manual_seed(seed)
    width = letters.shape[1]
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    return 7 * (letters - letters.mean(0)) @ turn


def section(letters, layer, kind, split="train", vector_type="topic"):
    noise = torch.randn(26 * 20, letters.shape[1], generator=torch.Generator().manual_seed(layer))
    vectors = turned(letters, layer + (100 if kind == "-1" else 0)).repeat(20, 1) + 0.05 * noise
    position = -1 if kind == "-1" else kind
    return Section(
        {
            "dataset_name": f"letters-{kind}",
            "filename": f"letters_{layer}_{kind}.safetensors",
            "layer": layer,
            "source": "test",
            "vector_type": vector_type,
            "position": position,
        },
        vectors,
        [Item(i, [LETTERS[i % 26]], split) for i in range(len(vectors))],
    )


@pytest.fixture(scope="module")
def training(letters):
    kinds = [(0, "name"), (0, "-1"), (2, "name"), (2, "-1")]
    others = [section(letters, 1, "name", "val"), section(letters, 1, "-1", vector_type="null")]
    return VectorLabelDataset([*(section(letters, *one) for one in kinds), *others])


def test_each_block_and_kind_of_position_is_read_by_its_own_probe(model, letters, training):
    plan = plan_question(model, question("q", "x"), "0,2", "template")
    reader = TokenCellReader(model, BlockProbes(model, training, "f.json", 0), 2)
    width = len(plan.plan.positions)
    assert plan.plan.positions[-1] == len(plan.plan.tokens) - 1
    expected = [[LETTERS[(5 * row + i) % 26] for i in range(width)] for row in range(2)]
    states = torch.empty(2, width, letters.shape[1])
    for row, layer in enumerate((0, 2)):
        for i in range(width):
            kind = 100 if i == width - 1 else 0
            states[row, i] = turned(letters, layer + kind)[(5 * row + i) % 26]
    found = reader.labels(states, plan)
    assert [[cell[0] for cell in row] for row in found] == expected
    assert all(len(cell) == 2 for row in found for cell in row)
    assert reader.name == RidgeProbe.name
    plain = TokenCellReader(model, TokenCosine(model), 2).labels(states, plan)
    assert [[cell[0] for cell in row] for row in plain] != expected


def test_a_file_that_lacks_train_vectors_of_one_place_is_refused(model, letters, training):
    probes = BlockProbes(model, training, "f.json", 0)
    plan = plan_question(model, question("q", "x"), "0,1", "template")
    with pytest.raises(DataError, match=r"f.json: 2 vectors of block 1 .* of blocks: 0, 2"):
        probes.places(plan)
    ends = VectorLabelDataset([section(letters, 0, "-1")])
    plan = plan_question(model, question("q", "x"), "0", "template")
    assert {kind for _, kind in BlockProbes(model, ends, "f", 0).places(plan)} == {"-1"}
    second = section(letters, 0, "-1")
    second.metadata["position"] = -2
    both = VectorLabelDataset([section(letters, 0, "-1"), second])
    with pytest.raises(DataError, match="no train vectors of block 0 for token .* name"):
        BlockProbes(model, both, "f", 0).places(plan)
    nothing = VectorLabelDataset([section(letters, 0, "name", "test")])
    with pytest.raises(DataError, match="of blocks: none"):
        BlockProbes(model, nothing, "f", 0).places(plan)


def test_names_that_begin_alike_are_entities_of_the_questions_or_concepts(model):
    made = [
        question("a", ("France", "French Republic"), answer="euro"),
        question("b", ("Franconia", "Franken"), e1="Frame of cd", answer="Europium"),
        question("c", "Finland"),
        question("d", "Quito", prompt="The hat of Frankfurt is", e1="Frankfurt"),
    ]
    found = Targets(made)
    of = {one.uid: found.of(plan_question(model, one, "0", "template")) for one in made}
    bridge = of["a"][BRIDGE]
    assert isinstance(bridge, EntityTarget)
    # The name with most letters in common first; "Finland" begins otherwise.
    assert bridge.same_start == (("Franconia", "Franken"), ("Frankfurt",), ("Frame of cd",))
    answer = of["a"][ANSWER]
    assert isinstance(answer, EntityTarget)
    # "Europium" begins with "euro", so it may be about the same; the concepts have others.
    assert answer.same_start
    assert all(one.startswith("eu") and "euro" not in one for (one,) in answer.same_start)
    concepts = of["d"][BRIDGE]
    assert isinstance(concepts, EntityTarget)
    assert len(concepts.same_start) == 5
    assert all(names[0].lower().startswith("qui") for names in concepts.same_start)
    entity = of["d"][ENTITY]
    assert isinstance(entity, EntityTarget)
    assert all("Frankfurt" not in names for names in entity.same_start)


def test_a_label_that_is_spelled_alike_counts_for_the_control_alone():
    labels = [
        [["Franconia", "x"], ["of France", "FRANKEN"]],
        [["Francis"], ["no"]],
    ]
    target = EntityTarget(("France",), (), (0, 1), (("Franconia", "Franken"), ("Frankfurt",)))
    row = target.found(labels)
    assert row["named"] == 1
    assert (row["same_start"], row["same_start_named"]) == (2, 0.5)
    at_the_first = EntityTarget(("France",), (), (0,), (("Frankfurt",),)).found(labels)
    assert (at_the_first["named"], at_the_first["same_start_named"]) == (0, 0.0)
    none = EntityTarget(("France",), (), (0,)).found(labels)
    assert (none["same_start"], none["same_start_named"]) == (0, None)
    # A reader of tokens is matched by first tokens, for the control too.
    first = target.found([[["Fr"], ["x"]]], lambda names: ["Fr"] if names[0] < "Frank" else ["Q"])
    assert (first["named"], first["same_start_named"]) == (1, 0.5)


def test_the_lead_is_compared_with_names_that_begin_alike():
    def row(bridge, named, alike, share):
        hits = [[int(named)]]
        target = EntityTarget((bridge,), ((("other"),),), (0,)).found([[["x"]]])
        target |= {"hits": hits, "named": float(named)}
        target |= {"same_start": alike, "same_start_named": share}
        return {
            "meaning": "m",
            "hits": hits,
            "labels": 1,
            "examples": [],
            "bridge": bridge,
            "names_bridge": False,
            "layers": [0],
            "positions": [0],
            "last": 0,
            "entity": None,
            "targets": {BRIDGE: target, ANSWER: {**target, "same_start": 0}},
        }

    rows = {
        "trained/1": row("a", True, 2, 0.5),
        "trained/2": row("b", True, 4, 0.25),
        "trained/3": row("c", False, 0, None),
    }
    found = summarize(rows, ["1", "2", "3"], 0)
    bridge, answer = (
        next(one for one in found["targets"] if one["target"] == role) for role in (BRIDGE, ANSWER)
    )
    assert bridge["questions_with_same_start"] == 2
    assert bridge["same_start"]["mean"] == pytest.approx(0.375)
    assert bridge["minus_same_start"]["mean"] == pytest.approx(0.625)
    assert (answer["questions_with_same_start"], answer["same_start"]) == (0, None)
    (pair,) = (one for one in found["comparisons"] if one["second"] == "same start")
    assert (pair["first"], pair["measure"]) == ("trained", BRIDGE)
    assert pair["difference"] == pytest.approx(bridge["minus_same_start"])
    assert pair["p"] == pytest.approx(0.5)  # both of two bridges in one direction


@pytest.fixture(scope="module")
def settings(golden_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("controls")
    rows = [
        {
            "uid": uid,
            "e1.value": "ab",
            "e2.value": bridge,
            "e3.value": "yonder",
            "r1(e1).prompt": f"ask {uid}",
            "r2(r1(e1)).prompt": f"A {word} of ab is",
        }
        for uid, bridge, word in (("1", "fee", "sea"), ("2", "hat", "hut"), ("3", "few", "den"))
    ]
    file = folder / "q.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**changes):
        values = {
            "questions": str(file),
            "model": "given",
            "adapter": str(golden_dir / "adapters/scalar_affine_norm.safetensors"),
            "only_answered": False,
            "layers": "0,2",
            "samples": 2,
            "max_new_tokens": 3,
            "untrained_scales": (),
            "random": False,
        }
        return BridgeSettings.model_validate(values | changes)

    return make


def test_with_a_training_file_the_ridge_probe_has_its_row(model, training, settings, tmp_path):
    save_dataset(tmp_path / "t.json", training.sections)
    given = settings(training_file=str(tmp_path / "t.json"))
    results = json.loads(Bridge.run(given, tmp_path / "r", model).read_text())
    names = [one["condition"] for one in results["conditions"]]
    assert names == ["trained", "logit lens", "cosine", "ridge probe", "zero vector"]
    assert results["not_measured"] == {}
    assert "training_file" in results["inputs"]
    rows = [json.loads(line) for line in (tmp_path / "r/rows.jsonl").read_text().splitlines()]
    counts = {row["labels"] for row in rows if row["key"].endswith("/1")}
    assert len(counts) == 1
    by_role = [one for one in results["targets"] if one["target"] == BRIDGE]
    assert len(by_role) == 5
    own = [row["targets"][BRIDGE] for row in rows if row["key"].startswith("trained/")]
    shares = [one["same_start_named"] for one in own]
    assert by_role[0]["same_start"]["mean"] == pytest.approx(np.mean(shares))
    printed = list(Bridge.report(results))
    minus = next(one for one in printed if isinstance(one, Table) and one.title == "Differences")
    assert list(minus.columns) == ["trained minus", "bridge, points"]
    by_hand = ["others of the category", "same start", *names[1:]]
    assert [row[0] for row in minus.rows] == by_hand
    with pytest.raises(ConfigError, match="with training_file .*; now it is None"):
        Bridge.run(settings(), tmp_path / "r", model)


def test_without_lens_only_what_is_asked_for_is_read(model, settings, tmp_path):
    results = json.loads(Bridge.run(settings(lens=False), tmp_path / "r", model).read_text())
    assert [one["condition"] for one in results["conditions"]] == ["trained", "zero vector"]
    assert results["not_measured"] == {}
    assert not any("not measured" in str(one) for one in Bridge.report(results))


def test_a_folder_of_the_lens_alone_is_completed(model, settings, tmp_path):
    """An earlier version read no cosine; its rows stay as they are."""
    path = Bridge.run(settings(), tmp_path / "r", model)
    whole = json.loads(path.read_text())
    lines = (tmp_path / "r/rows.jsonl").read_text().splitlines(keepends=True)
    earlier = [line for line in lines if '"key":"cosine/' not in line.replace('": "', '":"')]
    assert len(earlier) == len(lines) - 3
    (tmp_path / "r/rows.jsonl").write_text("".join(earlier))
    again = json.loads(Bridge.run(settings(), tmp_path / "r", model).read_text())

    def by_name(results):
        return {one["condition"]: one for one in results["conditions"]}

    assert by_name(again) == by_name(whole)
    report = [one for one in Bridge.report(again) if isinstance(one, str)]
    assert "not measured: ridge probe (no training_file to fit it on)" in report


def test_results_of_an_earlier_release_are_shown(model, settings, tmp_path):
    results = json.loads(Bridge.run(settings(), tmp_path / "r", model).read_text())
    del results["not_measured"]
    for one in results["targets"]:
        for key in ("questions_with_same_start", "same_start", "minus_same_start"):
            del one[key]
    tables = [one for one in Bridge.report(results) if isinstance(one, Table)]
    assert all("same start, %" not in one.columns for one in tables)


def test_loaded_training_files_are_what_the_folder_depends_on(model, training, settings, tmp_path):
    save_dataset(tmp_path / "t.json", training.sections)
    given = settings(training_file=str(tmp_path / "t.json"), limit=1)
    Bridge.run(given, tmp_path / "r", model)
    some = load_dataset(tmp_path / "t.json").sections
    fewer = [Section(one.metadata, one.vectors.clone(), list(one.items)[:-1]) for one in some]
    save_dataset(tmp_path / "t.json", fewer, overwrite=True)
    with pytest.raises(ConfigError, match="different training file"):
        Bridge.run(given, tmp_path / "r", model)
