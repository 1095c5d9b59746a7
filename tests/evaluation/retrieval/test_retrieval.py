from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from letters import LettersEmbedder
from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.config.evaluation.retrieval import RetrievalSettings
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation import base
from selfie_adapters.evaluation.baselines import LogitLens
from selfie_adapters.evaluation.retrieval.lookup import Entry
from selfie_adapters.evaluation.retrieval.protocol import Retrieval
from selfie_adapters.evaluation.retrieval.targets import Target, gather, other_labels
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.labelling import Labeller

SAMPLE = Path(__file__).parents[3] / "data/sample/sample.json"


def run(settings, folder, model):
    return Retrieval.run(settings, folder, model, embedder=LettersEmbedder())


@pytest.fixture(scope="module")
def adapters(golden_dir):
    names = {"plain": "scalar_affine_norm", "full": "full_rank_norm"}
    return {k: str(golden_dir / f"adapters/{v}.safetensors") for k, v in names.items()}


def settings_for(adapters, **changes):
    values = {
        "vectors": str(SAMPLE),
        "model": "given",
        "adapters": adapters,
        "max_new_tokens": 5,
        "batch_size": 5,
        "choose_on": 8,
        "untrained_scales": (1.0, 4.0),
        **changes,
    }
    return RetrievalSettings.model_validate(values)


@pytest.fixture(scope="module")
def finished(model, adapters, tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieval") / "r"
    path = run(settings_for(adapters), folder, model)
    return folder, json.loads(path.read_text()), read_jsonl(folder / "labels.jsonl")


def rows_of(table, condition):
    return [row for row in table if row["condition"] == condition]


def test_every_condition_is_measured_on_the_same_vectors(finished):
    _, results, table = finished
    names = [one["condition"] for one in results["conditions"]]
    assert names == [
        "plain",
        "full",
        "plain: shuffled",
        "full: shuffled",
        "plain: zero vector",
        "plain: random",
        "full: zero vector",
        "full: random",
        "untrained",
        "logit lens",
        "cosine",
        "ridge probe",
        "training labels",
        *(f"oracle: first {n} letter{'s'[: n > 1]}" for n in (1, 2, 3, 4)),
    ]
    names = names[:-4]
    keys = [row["key"] for row in rows_of(table, "plain")]
    assert len(keys) == len(load_dataset(SAMPLE).labelled("val")) == 12
    for name in names[:-1]:
        assert [row["key"] for row in rows_of(table, name)] == keys
    with_others = [i.labels for i in load_dataset(SAMPLE).labelled("val") if len(i.labels) > 1]
    assert len(rows_of(table, "training labels")) == len(with_others)
    for one in results["conditions"]:
        interval = one["recall_at"]["1"]
        assert interval["low"] <= interval["mean"] <= interval["high"]
        assert interval["low"] < interval["high"]
        assert interval["n"] == one["queries"]
    assert results["protocol"] == "retrieval"
    assert results["counts"] == {"topics": 24, "queries": 12}
    assert "torch" in results["versions"]


def test_labels_are_those_of_the_labeller_and_ranks_those_of_a_plain_loop(
    finished, model, adapters
):
    _, _, table = finished
    data = load_dataset(SAMPLE)
    items = data.labelled("val")
    vectors = torch.stack([data.sections[i.section].vectors[i.row].float() for i in items])
    labels = Labeller(model, load_adapter(adapters["plain"])).label(vectors, max_new_tokens=5)
    titles = list(dict.fromkeys(tuple(item.labels) for item in data.labelled()))
    embedder = LettersEmbedder()
    index = embedder.embed([title[0] for title in titles])
    for item, (label,), row in zip(items, labels, rows_of(table, "plain"), strict=True):
        assert row["label"] == label.text
        cosines = index @ embedder.embed([label.text])[0]
        own = cosines[titles.index(tuple(item.labels))]
        assert row["rank"] == 1 + sum(cosine > own + 1e-6 for cosine in cosines)
        assert row["topic"] == item.labels[0]


def test_controls_are_what_they_are_called(finished):
    _, _, table = finished
    real = [row["label"] for row in rows_of(table, "plain")]
    shuffled = [row["label"] for row in rows_of(table, "plain: shuffled")]
    assert sorted(shuffled) == sorted(real)
    assert shuffled != real
    assert len({row["label"] for row in rows_of(table, "plain: zero vector")}) == 1
    random = [row["label"] for row in rows_of(table, "plain: random")]
    assert random != real
    given = {item.labels[0]: item.labels for item in load_dataset(SAMPLE).labelled("val")}
    for row in rows_of(table, "training labels"):
        assert row["label"] in given[row["topic"]]
        assert row["label"] != row["topic"]
    for name in ("logit lens", "cosine", "ridge probe"):
        assert len({row["label"] for row in rows_of(table, name)}) > 1


def test_the_lens_reads_the_measured_vectors(finished, model):
    _, _, table = finished
    data = load_dataset(SAMPLE)
    vectors = gather(data, data.labelled("val"))
    labels = [row["label"] for row in rows_of(table, "logit lens")]
    assert labels == LogitLens(model).words(vectors)


def test_the_untrained_scale_is_chosen_on_another_split(finished):
    folder, results, table = finished
    assert results["settings"]["split"] == "val"  # the file has no test vectors
    assert results["scale_choices"]["split"] == "train"
    tried = results["scale_choices"]["mean_reciprocal_rank"]["untrained"]
    assert set(tried) == {"1", "4"}
    best = max(tried, key=lambda scale: tried[scale])
    assert {row["scale"] for row in rows_of(table, "untrained")} == {float(best)}
    units = {row["key"]: row["labels"] for row in read_jsonl(folder / "rows.jsonl")}
    chosen_on = [len(units[f"untrained: choosing a scale × {scale}/0"]) for scale in tried]
    assert chosen_on == [5, 5]  # eight vectors in batches of five


def test_adapters_are_compared_with_each_other_and_with_every_control(finished, adapters):
    _, results, table = finished
    pairs = [(pair["first"], pair["second"]) for pair in results["comparisons"]]
    common = ["untrained", "logit lens", "cosine", "ridge probe"]
    common += [one["condition"] for one in results["conditions"][-4:]]
    own = {n: [f"{n}: {c}" for c in ("shuffled", "zero vector", "random")] for n in adapters}
    expected = [(name, other) for name in own for other in (*own[name], *common)]
    assert pairs == [("plain", "full"), *expected]
    for pair in results["comparisons"]:
        assert pair["p_holm"]["recall_at_1"] >= pair["p"]["recall_at_1"]
    ranks = {n: [r["rank"] for r in rows_of(table, n)] for n in ("plain", "full")}
    a_higher = sum(a < b for a, b in zip(ranks["plain"], ranks["full"], strict=True))
    assert results["comparisons"][0]["first_ranks_higher"] == a_higher


@pytest.mark.parametrize("killed_at", [0, 3, 11])
def test_a_killed_run_goes_on_to_the_same_bytes(
    finished, model, adapters, tmp_path, monkeypatch, killed_at
):
    folder, _, _ = finished
    label, calls = Labeller.label, []

    def dying(self, *arguments, **options):
        calls.append(arguments)
        if len(calls) > killed_at:
            raise KeyboardInterrupt
        return label(self, *arguments, **options)

    settings = settings_for(adapters)
    with monkeypatch.context() as patch:
        patch.setattr(base.Labeller, "label", dying)
        with pytest.raises(KeyboardInterrupt):
            run(settings, tmp_path / "r", model)
    assert len(read_jsonl(tmp_path / "r/rows.jsonl")) == killed_at
    with (tmp_path / "r/rows.jsonl").open("a") as file:
        file.write('{"key": "plain × 1/')  # and the kill tore a line
    run(settings, tmp_path / "r", model)
    for name in ("results.json", "labels.jsonl"):
        assert (tmp_path / "r" / name).read_bytes() == (folder / name).read_bytes()


def test_a_finished_run_is_not_labelled_again(finished, model, adapters, monkeypatch):
    folder, _, _ = finished
    monkeypatch.setattr(base.Labeller, "label", None)
    before = (folder / "results.json").read_bytes()
    run(settings_for(adapters), folder, model)
    assert (folder / "results.json").read_bytes() == before
    with pytest.raises(ConfigError, match="max_new_tokens 5; now it is 6"):
        Retrieval.run(
            settings_for(adapters, max_new_tokens=6), folder, model, embedder=LettersEmbedder()
        )


def test_made_labels_are_looked_up_without_a_model(tmp_path):
    topics = tmp_path / "topics.jsonl"
    names = ["owl", "tin", "bee", "ladder"]
    topics.write_text("".join(json.dumps({"name": name}) + "\n" for name in names))
    said = tmp_path / "said.jsonl"
    texts = ["owls", "tinny", "wasp", "ladders"]
    said.write_text(
        "".join(
            json.dumps({"topic": name, "label": text}) + "\n"
            for name, text in zip(names, texts, strict=True)
        )
    )
    settings = RetrievalSettings(topics=str(topics), labels={"said": str(said)})
    path = Retrieval.run(settings, tmp_path / "r", embedder=LettersEmbedder())
    results = json.loads(path.read_text())
    names = [one["condition"] for one in results["conditions"]]
    # the topics' only labels are their titles: right by construction, so no training labels
    assert names[:2] == ["said", "said: shuffled"]
    assert all(name.startswith("oracle") for name in names[2:])
    said, shuffled, *_, oracle = results["conditions"]
    assert said["recall_at"]["1"]["mean"] == 0.75
    assert shuffled["recall_at"]["1"]["mean"] <= 0.25  # "wasp" may be near anything
    assert oracle["recall_at"]["1"]["mean"] == 1  # no two titles begin alike


def test_the_ceiling_is_a_label_that_is_not_the_title():
    entries = [Entry("owl", ("owl", "a", "b")), Entry("tin", ("tin",))]
    targets = [Target("0", 0, ("owl", "a", "b", " OWL")), Target("1", 1, ("tin",))]
    drawn = {tuple(other_labels(targets, entries, seed)) for seed in range(20)}
    assert drawn == {("a", None), ("b", None)}


def test_results_are_of_test_vectors_and_scales_of_val_where_the_file_has_both(
    model, adapters, tmp_path
):
    content = json.loads(SAMPLE.read_text())
    seen = 0
    for section in content if isinstance(content, list) else content["datasets"]:
        for vector in section["vectors"]:
            if vector["split"] == "val":
                seen += 1
                vector["split"] = "test" if seen % 2 else "val"
    file = tmp_path / "three.json"
    file.write_text(json.dumps(content))
    for npy in SAMPLE.parent.glob("everyday_*"):
        (tmp_path / npy.name).write_bytes(npy.read_bytes())
    path = run(settings_for(adapters, vectors=str(file)), tmp_path / "r", model)
    results = json.loads(path.read_text())
    assert results["settings"]["split"] == "test"
    assert results["counts"]["queries"] == (seen + 1) // 2
    assert results["scale_choices"]["split"] == "val"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vectors": "v.json"}, "adapters and labels are both empty"),
        ({"adapters": {"a": "x"}, "topics": "concepts"}, "adapters need model and vectors"),
        ({"labels": {"a": "x"}}, "give vectors, or topics"),
        ({"labels": {"untrained": "x"}, "topics": "concepts"}, "untrained stands for another"),
    ],
)
def test_settings_that_make_no_sense(values, message):
    with pytest.raises(ValueError, match=message):
        RetrievalSettings(**values)


def test_vectors_of_another_width_and_too_few_of_them(model, adapters, tmp_path):
    with pytest.raises(DataError, match="1 vectors or topics"):
        Retrieval.run(
            settings_for(adapters, limit=1), tmp_path / "a", model, embedder=LettersEmbedder()
        )


def test_seeds_of_one_recipe_are_one_result(model, tmp_path):
    adapters = {}
    for seed in (0, 1):
        adapter = create_adapter("scalar_affine", 48, normalize_input=True, init_scale=3.0)
        torch.nn.init.normal_(dict(adapter.named_parameters())["bias"], std=0.2 + seed)
        adapter.record = replace(
            adapter.record, config={"seed": seed, "training": {"max_steps": 3}}
        )
        adapters[f"affine-{seed}"] = str(adapter.save(tmp_path / f"{seed}.safetensors"))
    found = json.loads(run(settings_for(adapters), tmp_path / "r", model).read_text())
    table = read_jsonl(tmp_path / "r/labels.jsonl")
    (recipe,) = found["recipes"]
    assert (recipe["recipe"], recipe["adapters"]) == ("affine", [*adapters])
    ranks = np.array([[row["rank"] for row in rows_of(table, name)] for name in adapters])
    assert recipe["by_seed"] == pytest.approx((ranks == 1).mean(axis=1).tolist())
    assert recipe["mean_reciprocal_rank"]["mean"] == pytest.approx((1 / ranks).mean())
    others = {pair["second"] for pair in recipe["comparisons"]}
    assert others >= {"shuffled", "zero vector", "random", "untrained", "logit lens"}
    # An adapter's own control is that of the same seed; one that all share is the same for each.
    for other, names in (
        ("random", [f"{name}: random" for name in adapters]),
        ("cosine", ["cosine", "cosine"]),
    ):
        theirs = np.array([[row["rank"] for row in rows_of(table, name)] for name in names])
        (pair,) = (
            one
            for one in recipe["comparisons"]
            if (one["second"], one["measure"]) == (other, "mean_reciprocal_rank")
        )
        assert pair["difference"]["mean"] == pytest.approx((1 / ranks - 1 / theirs).mean())
        assert pair["p"] <= pair["p_holm"] <= 1
    conditions, more, *_ = Retrieval.report(found)
    assert conditions.rows[0][0] == "affine, 2 seeds"
    low, high = (100 * share for share in sorted(recipe["by_seed"]))
    assert conditions.rows[0][1].endswith(f"] ({low:.1f}–{high:.1f})")
    assert [*conditions.bold] == ["affine, 2 seeds"]
    names = [row[0] for row in conditions.rows]
    assert names[1] == "affine: shuffled, 2 seeds"
    assert not {*names} & {*adapters}
    assert list(more.columns) == [
        "than",
        "recall@1, points",
        "recall@10, points",
        "reciprocal rank",
    ]
    (random,) = (row for row in more.rows if row[0] == "random")
    stated = {
        one["measure"]: one["difference"]["mean"]
        for one in recipe["comparisons"]
        if one["second"] == "random"
    }
    assert random[1].startswith(f"{100 * stated['recall_at_1']:+.1f} [")
    assert random[3].startswith(f"{stated['mean_reciprocal_rank']:+.3f} [")
    assert found["comparisons"] == []  # two seeds of one recipe are no comparison
    del found["recipes"]  # results of earlier releases
    conditions, *_ = Retrieval.report(found)
    assert [row[0] for row in conditions.rows][:2] == [*adapters]


def test_a_condition_of_every_adapter_is_compared_in_its_column(finished):
    _, results, _ = finished
    _, more, *_ = Retrieval.report(results)
    assert list(more.columns) == ["than", "plain", "full"]
    rows = {row[0]: row[1:] for row in more.rows}
    pairs = {(one["first"], one["second"]): one for one in results["comparisons"]}
    for number, name in enumerate(("plain", "full")):
        difference = pairs[name, f"{name}: shuffled"]["difference"]["recall_at_1"]["mean"]
        assert rows["shuffled"][number].startswith(f"{100 * difference:+.1f} [")
    assert rows["full"][1] == "–"
