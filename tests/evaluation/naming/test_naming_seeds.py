"""Several adapters in one run: seeds of a recipe are a level of shares and of comparisons."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from naming_data import write_naming_data
from selfie_adapters.adapters import create_adapter
from selfie_adapters.config.evaluation.naming import NamingSettings
from selfie_adapters.errors import ConfigError
from selfie_adapters.evaluation import controls
from selfie_adapters.evaluation.naming import retrieval as naming_retrieval
from selfie_adapters.evaluation.naming import verdicts
from selfie_adapters.evaluation.naming.protocol import NamingProtocol
from selfie_adapters.evaluation.naming.results import naming_panels
from selfie_adapters.evaluation.recipes import SEEDS
from selfie_adapters.evaluation.tables import Table, percent
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.report.evaluation_figures import evaluation_figures
from selfie_adapters.report.evaluation_section import evaluation_section
from selfie_adapters.report.figures import naming_by_block
from selfie_adapters.report.matrix import cross_tests
from selfie_adapters.statistics import wilson

SHARED = ["untrained", "logit lens", "cosine", "ridge probe"]
OWN = ["zero vector", "shuffled", "random"]


def some_are_exact(label, topic):
    """The labels of the tiny model are never right: letters decide."""
    return sum(map(ord, label + topic.title)) % 3 == 0


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "MAX_NEW_TOKENS", 4)
        patch.setattr(naming_retrieval, "CANDIDATES", 3)
        patch.setattr(verdicts, "is_exact", some_are_exact)
        yield


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Two seeds of a recipe, and an adapter of another kind."""
    folder = tmp_path_factory.mktemp("adapters")
    found = {}
    for kind, seed in (("full_rank", 0), ("scalar_affine", 0), ("full_rank", 1)):
        torch.manual_seed(seed)
        adapter = create_adapter(kind, 48, normalize_input=True)
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        adapter.record = replace(adapter.record, config={"seed": seed, "kind": kind})
        found[f"{kind}-{seed}"] = str(adapter.save(folder / f"{kind}-{seed}.safetensors"))
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_naming_data(tmp_path_factory.mktemp("data"))


def run(folder, model, source, **given):
    settings = NamingSettings(source=source, model="given", retrieval=6, **given)
    return json.loads(NamingProtocol.run(settings, folder, model).read_text())


@pytest.fixture(scope="module")
def finished(adapters, source, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "r"
    results = run(folder, model, source, adapters=adapters)
    return folder, results, read_jsonl(folder / "labels.jsonl")


def hits(rows, position, condition):
    """Per topic the share of its vectors, over all blocks, with an exact label."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if (row["position"], row["condition"]) == (position, condition):
            found.setdefault(row["name"], []).append(row["exact"])
    return np.array([np.mean(found[name]) for name in sorted(found)])


def place(results, position):
    (found,) = (one for one in results["positions"] if one["position"] == position)
    return found


def test_every_adapter_has_its_controls_and_all_share_the_other_readers(finished, adapters):
    _, results, _ = finished
    expected = [
        name for a in adapters for name in (a, *(f"{a}: {control}" for control in OWN))
    ] + SHARED
    for one in (*results["sections"], *results["positions"]):
        assert [condition["condition"] for condition in one["conditions"]] == expected
    retrieved = results["sections"][0]["retrieval"][0]["first"]
    assert {*retrieved} == {*expected}


def test_a_recipe_has_the_mean_over_topics_and_seeds_and_each_seeds_share(finished):
    _, results, rows = finished
    (recipe,) = place(results, "name")["recipes"]
    assert (recipe["recipe"], recipe["adapters"]) == ("full_rank", ["full_rank-0", "full_rank-1"])
    seeds = np.stack([hits(rows, "name", name) for name in recipe["adapters"]])
    assert 0 < seeds.mean() < 1
    assert recipe["by_seed"]["exact"] == pytest.approx(seeds.mean(axis=1).tolist())
    share = recipe["share"]["exact"]
    assert share["mean"] == pytest.approx(seeds.mean())
    assert share["n"] == 6
    generator = np.random.default_rng(3)  # resampled in a plain loop, with other random numbers
    means = np.array(
        [
            seeds[np.ix_(generator.integers(2, size=2), generator.integers(6, size=6))].mean()
            for _ in range(8000)
        ]
    )
    rounding = 1e-9
    for beyond, reached in (
        (means > share["high"] + rounding, means > share["high"] - rounding),
        (means < share["low"] - rounding, means < share["low"] + rounding),
    ):
        assert beyond.mean() < 0.025 + 0.005
        assert reached.mean() > 0.025 - 0.005


def test_recipes_are_compared_with_controls_of_the_same_seed_and_with_other_adapters(finished):
    _, results, rows = finished
    (recipe,) = place(results, "name")["recipes"]
    mine = np.stack([hits(rows, "name", name) for name in recipe["adapters"]])
    found = {
        one["second"]: one["difference"]["mean"]
        for one in recipe["comparisons"]
        if one["measure"] == "exact"
    }
    assert {*found} == {*OWN, *SHARED, "scalar_affine-0"}
    for control in OWN:
        theirs = np.stack([hits(rows, "name", f"{name}: {control}") for name in recipe["adapters"]])
        assert found[control] == pytest.approx((mine - theirs).mean())
    for other in ("ridge probe", "scalar_affine-0"):
        assert found[other] == pytest.approx(mine.mean() - hits(rows, "name", other).mean())


def test_a_family_is_what_is_reported_and_no_pair_of_seeds_is_in_it(finished):
    _, results, _ = finished
    for places in (results["sections"], results["positions"]):
        pairs = [
            pair
            for one in places
            for pair in one["comparisons"] + one["recipes"][0]["comparisons"]
            if pair["measure"] == "exact"
        ]
        # 7 controls of the recipe, 7 of the other adapter, and these two with each other
        assert len(pairs) == 15 * len(places)
        assert {pair["first"] for pair in pairs} == {"full_rank", "scalar_affine-0"}
        expected = 0.0
        for rank, one in enumerate(sorted(pairs, key=lambda pair: pair["p"])):
            expected = max(expected, min(1.0, (len(pairs) - rank) * one["p"]))
            assert one["p_holm"] == pytest.approx(expected)


def test_one_adapter_alone_has_the_same_numbers(finished, adapters, source, model, tmp_path):
    folder, results, _ = finished
    alone = run(tmp_path / "r", model, source, adapter=adapters["full_rank-0"])
    of = {
        "adapter": "full_rank-0",
        **{control: f"full_rank-0: {control}" for control in OWN},
        **{name: name for name in SHARED},
    }
    for one, many in zip(alone["sections"], results["sections"], strict=True):
        assert one["recipes"] == []
        assert [condition["condition"] for condition in one["conditions"]] == [*of]
        stated = {condition["condition"]: condition for condition in many["conditions"]}
        for condition in one["conditions"]:
            same = stated[of[condition["condition"]]]
            assert condition == {**same, "condition": condition["condition"]}
        for few, more in zip(one["retrieval"], many["retrieval"], strict=True):
            assert few["first"] == {
                name: more["first"][of[name]] for name in of if of[name] in more["first"]
            }
    keys = [row["key"] for row in read_jsonl(folder / "rows.jsonl")]
    shared = [key for key in keys if "ridge probe" in key or "untrained" in key]
    assert len(shared) == len({*shared})
    own = [row["key"] for row in read_jsonl(tmp_path / "r/rows.jsonl")]
    assert shared == [key for key in own if "ridge probe" in key or "untrained" in key]


def test_tables_figures_and_pages_have_a_recipe_as_one(finished, adapters):
    folder, results, rows = finished
    printed = [*NamingProtocol.report(results)]
    by_block, shares, *_ = (one for one in printed if isinstance(one, Table))
    assert [row[0] for row in by_block.rows][:2] == [
        "full_rank, 2 seeds",
        "full_rank: zero vector, 2 seeds",
    ]
    assert list(shares.columns) == ["% of labels", "full_rank, 2 seeds", "scalar_affine-0"]
    first = place(results, "-1")
    (recipe,) = first["recipes"]
    low, high = (100 * one for one in sorted(recipe["by_seed"]["exact"]))
    assert shares.rows[0][1].endswith(f"] ({low:.0f}–{high:.0f})")
    mean = hits(rows, "-1", "scalar_affine-0").mean()
    assert shares.rows[0][2] == percent(wilson(6 * mean, 6))
    assert SEEDS in (shares.caption or "")
    compared = next(one for one in printed if isinstance(one, Table) and "compared" in one.title)
    assert list(compared.columns) == ["minus", "full_rank, 2 seeds", "scalar_affine-0"]
    lines = [one for one in printed if isinstance(one, str)]
    assert len(lines) == 2  # what vectors without a concept show: the recipe, and the other adapter
    panel = naming_panels(results)[0]
    assert [*panel.lines] == [
        "full_rank, 2 seeds",
        "scalar_affine-0",
        "logit lens",
        "ridge probe",
        "untrained",
    ]
    svg = naming_by_block(naming_panels(results))
    assert svg.count("full_rank, 2 seeds") == 1  # in the legend
    assert evaluation_section(folder, "r", "t").pieces
    (matrix,) = cross_tests([("r", results)])
    assert [name for name, _ in matrix.rows][:3] == [*adapters]
    named = {one.condition for one in evaluation_figures(folder, adapters["scalar_affine-0"])}
    assert "this adapter" in named
    assert not any("full_rank" in one for one in named)


def test_files_without_vectors_without_a_concept(adapters, model, tmp_path):
    source = write_naming_data(tmp_path, nulls=False)
    results = run(tmp_path / "r", model, source, adapters=adapters, layers="0", limit=2)
    assert results["without_concept"] is None
    assert all(isinstance(one, Table) for one in NamingProtocol.report(results))


def test_what_is_no_set_of_different_adapters_is_refused(adapters, source, model, tmp_path):
    one = adapters["full_rank-0"]
    copy = shutil.copy(one, tmp_path / "copy.safetensors")
    with pytest.raises(ConfigError, match="adapters a and b are the same file"):
        run(tmp_path / "r", model, source, adapters={"a": one, "b": str(copy)})
    with pytest.raises(ValueError, match="adapter and adapters are both given"):
        NamingSettings(source=source, adapter=one, adapters={"a": one})
    for name in ("untrained", "adapter", "a: zero vector"):
        with pytest.raises(ValueError, match=f"the name {name} is reserved for a control"):
            NamingSettings(source=source, adapters={name: one})
    run(tmp_path / "s", model, source, adapter=one, layers="0", limit=2)
    with pytest.raises(ConfigError, match="holds an evaluation"):
        run(tmp_path / "s", model, source, adapters={"a": one}, layers="0", limit=2)
