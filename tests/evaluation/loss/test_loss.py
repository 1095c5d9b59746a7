from __future__ import annotations

import json
import shutil
from copy import deepcopy
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.config.evaluation.loss import LossSettings
from selfie_adapters.dataset import Item, Section, load_dataset, save_dataset
from selfie_adapters.errors import BindingError, ConfigError, DataError
from selfie_adapters.evaluation.baselines import untrained_readers
from selfie_adapters.evaluation.loss import held_out
from selfie_adapters.evaluation.loss.protocol import Loss
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.model import SoftPrompt, bind
from selfie_adapters.training import label_losses
from tiny_folders import nudge_weight

SAMPLE = Path(__file__).parents[3] / "data/sample/sample.json"
LABELS = [["owl", "a night bird"], ["tin"], ["bee", "wasp", "hive"], ["ladder"], ["gnu", "elk"]]


@pytest.fixture(scope="module")
def files(golden_dir, tmp_path_factory):
    """Two adapters, and two training files with several labels per vector."""
    folder = tmp_path_factory.mktemp("loss")
    names = {"plain": "scalar_affine_norm", "full": "full_rank_norm"}
    adapters = {k: str(golden_dir / f"adapters/{v}.safetensors") for k, v in names.items()}
    vectors = torch.randn(9, 48, generator=torch.Generator().manual_seed(4)) * 3
    items = [Item(i, labels, "val") for i, labels in enumerate(LABELS)]
    items += [Item(5 + i, [f"thing {i}"], "train") for i in range(4)]
    metadata = {"dataset_name": "own", "filename": "own.safetensors", "layer": 1}
    metadata |= {"source": "here", "vector_type": "random"}
    save_dataset(folder / "own.json", [Section(metadata, vectors, items)])
    return adapters, {"own": str(folder / "own.json"), "sample": str(SAMPLE)}


def settings_for(files, **changes):
    adapters, datasets = files
    values = {"model": "given", "adapters": adapters, "datasets": datasets, "batch_size": 3}
    values |= {"untrained_scales": (1.0, 4.0), "choose_on": 3}
    return LossSettings.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def finished(files, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "r"
    path = Loss.run(settings_for(files), folder, model)
    return folder, json.loads(path.read_text()), read_jsonl(folder / "examples.jsonl")


def cell(results, adapter, dataset):
    (found,) = [c for c in results["cells"] if (c["adapter"], c["dataset"]) == (adapter, dataset)]
    return found


def test_losses_are_the_label_losses_of_each_example(finished, files, model):
    _, results, rows = finished
    adapter = load_adapter(files[0]["plain"])
    data = load_dataset(files[1]["own"])
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    pairs = [(i, label) for i, labels in enumerate(LABELS) for label in labels]
    vectors = torch.stack([data.sections[0].vectors[i] for i, _ in pairs])
    labels = [label for _, label in pairs]
    identity = create_adapter("identity", 48, normalize_input=True)
    with torch.no_grad():
        expected = {
            "trained": label_losses(model, prompt, adapter, vectors, labels),
            "zero": label_losses(model, prompt, adapter, vectors * 0, labels),
            "identity": label_losses(model, prompt, identity, vectors, labels),
        }
    mine = [r for r in rows if (r["adapter"], r["dataset"]) == ("plain", "own")]
    assert [row["label"] for row in mine] == labels
    assert mine[0]["key"] == "own@l1/0"
    for condition, losses in expected.items():
        assert [row[condition] for row in mine] == pytest.approx(losses.tolist(), rel=1e-3)
        found = cell(results, "plain", "own")["loss"][condition]
        assert found["mean"] == pytest.approx(float(losses.mean()), rel=1e-3)
        assert found["n"] == 5  # vectors, though there are nine examples
        assert found["low"] < found["mean"] < found["high"]


def test_controls_have_other_vectors(finished):
    _, _, rows = finished
    mine = [r for r in rows if (r["adapter"], r["dataset"]) == ("full", "own")]
    conditions = ("trained", "zero", "shuffled", "random", "identity", "untrained")
    means = {c: np.mean([row[c] for row in mine]) for c in conditions}
    assert len({round(float(m), 6) for m in means.values()}) == 6
    assert all(row["shuffled"] != row["trained"] for row in mine)


def test_the_word_of_a_reader_without_an_adapter_takes_the_soft_tokens_place(
    finished, files, model
):
    _, _, rows = finished
    mine = [r for r in rows if (r["adapter"], r["dataset"]) == ("plain", "own")]
    data = load_dataset(files[1]["own"])
    names = [f"thing {i}" for i in range(4)]
    readers = untrained_readers(model, data.sections[0].vectors[5:9], names)
    assert [one.name for one in readers] == ["logit lens", "cosine", "ridge probe"]
    bare = create_adapter("identity", 48)
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    for reader in readers:
        tokens = reader.tokens(data.sections[0].vectors[:5])
        words = model.embedding(tokens)[:, 0].detach()
        pairs = [(words[i], label) for i, labels in enumerate(LABELS) for label in labels]
        with torch.no_grad():
            expected = label_losses(
                model, prompt, bare, torch.stack([w for w, _ in pairs]), [x for _, x in pairs]
            )
        assert [row[reader.name] for row in mine] == pytest.approx(expected.tolist(), rel=1e-3)


def test_what_an_adapter_saves_is_paired_by_vector_and_adjusted_over_all(finished):
    _, results, rows = finished
    pairs = results["comparisons"]
    # per data set: 8 controls of each of two adapters, and the adapters with each other
    assert len(pairs) == 2 * (2 * 8 + 1)
    for pair in pairs:
        mine = [r for r in rows if (r["adapter"], r["dataset"]) == (pair["first"], pair["dataset"])]
        if pair["second"] == "full":
            continue
        saved = np.mean([row[pair["second"]] - row["trained"] for row in mine])
        assert pair["difference"]["mean"] == pytest.approx(saved, abs=1e-4)
        assert pair["p"] <= pair["p_holm"] <= min(1, len(pairs) * pair["p"] + 1e-9)
    (between,) = [p for p in pairs if (p["second"], p["dataset"]) == ("full", "own")]
    of = {
        name: np.mean([r["trained"] for r in rows if (r["adapter"], r["dataset"]) == (name, "own")])
        for name in ("plain", "full")
    }
    assert between["difference"]["mean"] == pytest.approx(of["full"] - of["plain"], abs=1e-4)


def test_seeds_of_one_recipe_are_one_result(files, model, tmp_path):
    adapters = {}
    for seed in (0, 1):
        adapter = create_adapter("scalar_affine", 48, normalize_input=True, init_scale=3.0)
        torch.nn.init.normal_(dict(adapter.named_parameters())["bias"], std=0.2)
        config = {"seed": seed, "experiment_name": f"run {seed}", "training": {"max_steps": 3}}
        adapter.record = replace(adapter.record, config=config)
        file = tmp_path / f"{seed}.safetensors"
        adapter.save(file)
        adapters[f"affine-seed{seed}"] = str(file)
    datasets = {"own": files[1]["own"]}
    found = json.loads(
        Loss.run(settings_for((adapters, datasets)), tmp_path / "r", model).read_text()
    )
    assert found["comparisons"] == []  # two seeds of one recipe are no comparison
    (recipe,) = found["recipes"]
    assert (recipe["recipe"], recipe["adapters"]) == ("affine", [*adapters])
    means = [cell(found, name, "own")["loss"]["trained"]["mean"] for name in adapters]
    assert recipe["by_seed"] == pytest.approx(means)
    assert recipe["loss"]["mean"] == pytest.approx(np.mean(means))
    assert recipe["loss"]["low"] < min(means)
    assert {pair["second"] for pair in recipe["comparisons"]} >= {"zero", "logit lens"}
    losses, saved = Loss.report(found)
    assert list(losses.columns) == ["condition", "affine, 2 seeds"]
    assert list(saved.columns) == ["against", "affine, 2 seeds"]
    low, high = min(means), max(means)
    assert losses.rows[0][0] == "trained"
    assert losses.rows[0][1].startswith(f"{np.mean(means):.2f} [")
    assert losses.rows[0][1].endswith(f"] ({low:.2f}–{high:.2f})")
    assert [row[0] for row in saved.rows] == [pair["second"] for pair in recipe["comparisons"]]
    assert all("\np " in row[1] for row in saved.rows)


def test_recipes_and_lone_adapters_are_one_family_without_pairs_of_seeds(files, model, tmp_path):
    adapters = {"full": files[0]["full"]}
    for kind in ("scale_only", "scalar_affine"):
        for seed in (0, 1, 2):
            adapter = create_adapter(kind, 48, normalize_input=True, init_scale=2.0)
            for parameter in adapter.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
            adapter.record = replace(adapter.record, config={"seed": seed, "kind": kind})
            name = f"{kind}-{seed}"
            adapters[name] = str(adapter.save(tmp_path / f"{name}.safetensors"))
    settings = settings_for((adapters, files[1]), limit=3)
    found = json.loads(Loss.run(settings, tmp_path / "r", model).read_text())
    pairs = found["comparisons"] + [p for one in found["recipes"] for p in one["comparisons"]]
    subjects = ["full", "scale_only", "scalar_affine"]
    for data in files[1]:
        between = {
            (one["first"], one["second"])
            for one in pairs
            if one["dataset"] == data and one["second"] in subjects
        }
        assert between == {*combinations(subjects, 2)}
    assert {one["first"] for one in pairs} == {*subjects}
    assert not {one["second"] for one in pairs} & ({*adapters} - {"full"})
    expected = 0.0
    for rank, one in enumerate(sorted(pairs, key=lambda one: one["p"])):
        expected = max(expected, min(1.0, (len(pairs) - rank) * one["p"]))
        assert one["p_holm"] == pytest.approx(expected)
    saved = [*Loss.report(found)][1]
    assert list(saved.columns) == [
        "against",
        "full",
        "scale_only, 3 seeds",
        "scalar_affine, 3 seeds",
    ]
    assert [row[0] for row in saved.rows][-2:] == ["scale_only, 3 seeds", "scalar_affine, 3 seeds"]
    means = {
        name: np.mean(
            [cell(found, f"{name}-{seed}", "own")["loss"]["trained"]["mean"] for seed in range(3)]
        )
        for name in subjects[1:]
    }
    (pair,) = (
        one
        for one in pairs
        if (one["first"], one["second"], one["dataset"]) == ("scale_only", "scalar_affine", "own")
    )
    assert pair["difference"]["mean"] == pytest.approx(means["scalar_affine"] - means["scale_only"])


def test_one_adapter_under_two_names_is_refused(files, model, tmp_path):
    twice = {"a": files[0]["plain"], "b": files[0]["plain"]}
    with pytest.raises(ConfigError, match="adapters a and b are the same file"):
        Loss.run(settings_for((twice, files[1])), tmp_path / "r", model)


def test_the_report_has_one_column_per_adapter_and_what_it_saves(finished):
    _, results, _ = finished
    tables = list(Loss.report(results))
    assert [table.title.split(",")[0] for table in tables] == [
        "Loss of held-out labels on own",
        "Nats per token that each adapter saves on own",
        "Loss of held-out labels on sample",
        "Nats per token that each adapter saves on sample",
    ]
    losses, saved = tables[:2]
    assert list(losses.columns) == ["condition", "plain", "full"]
    rows = {row[0]: row[1:] for row in losses.rows}
    for number, name in enumerate(("plain", "full")):
        mean = cell(results, name, "own")["loss"]["shuffled"]["mean"]
        assert rows["shuffled"][number].startswith(f"{mean:.2f} [")
    pairs = {
        (one["second"], one["first"]): one
        for one in results["comparisons"]
        if one["dataset"] == "own"
    }
    last = saved.rows[-1]
    assert last[0] == "full"  # plain minus full is in the column of plain
    assert last[1].startswith(f"{pairs['full', 'plain']['difference']['mean']:+.2f} [")
    assert last[2] == "–"


def test_results_of_earlier_releases_are_shown(finished):
    _, results, _ = finished
    old = {k: v for k, v in deepcopy(results).items() if k not in ("comparisons", "recipes")}
    for one in old["cells"]:
        one["loss"] = {k: v for k, v in one["loss"].items() if k in ("trained", "zero")}
    own, sample = Loss.report(old)
    assert list(own.columns) == ["condition", "plain", "full"]
    for table in (own, sample):
        assert [row[0] for row in table.rows] == ["trained", "zero", "bias share"]


def test_the_bias_share_is_that_of_the_means(finished):
    _, results, _ = finished
    assert len(results["cells"]) == 4
    for one in results["cells"]:
        loss = {name: found["mean"] for name, found in one["loss"].items()}
        if loss["trained"] >= loss["identity"]:
            assert one["bias_share"] is None
            continue
        by_hand = (loss["identity"] - loss["zero"]) / (loss["identity"] - loss["trained"])
        assert one["bias_share"]["mean"] == pytest.approx(by_hand)
    assert any(one["bias_share"] for one in results["cells"])


def test_the_matrix_has_a_row_an_adapter_and_two_controls(finished):
    _, results, _ = finished
    matrix = results["matrix"]
    assert matrix["rows"] == ["plain", "full", "untrained", "identity"]
    assert matrix["columns"] == ["own", "sample"]
    assert matrix["loss"][1][1] == cell(results, "full", "sample")["loss"]["trained"]["mean"]
    assert matrix["loss"][2][0] == cell(results, "plain", "own")["loss"]["untrained"]["mean"]


def test_what_adapters_have_in_common_is_measured_once(finished):
    folder, results, _ = finished
    keys = [row["key"] for row in read_jsonl(folder / "rows.jsonl")]
    assert sum(key.startswith("identity, unit on own/") for key in keys) == 2  # batches of three
    a, b = (cell(results, name, "own") for name in ("plain", "full"))
    assert a["loss"]["untrained"] == b["loss"]["untrained"]


def tried_scales(file, split, count, model):
    """Loss of the first labels of `count` vectors of a split, at each untrained scale."""
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    norm = float(model.embedding(torch.arange(261).unsqueeze(0)).norm(dim=-1).mean())
    chosen = held_out.HeldOut.of(load_dataset(file), split, count, False, 0)
    found = {}
    for scale in ("1", "4"):
        plain = create_adapter("scale_only", 48, init_scale=float(scale) * norm)
        pairs = [(chosen.vectors[i], label) for i in range(count) for label in chosen.labels(i)]
        vectors, labels = torch.stack([v for v, _ in pairs]), [label for _, label in pairs]
        with torch.no_grad():
            losses = label_losses(model, prompt, plain, vectors, labels)
        found[scale] = pytest.approx(float(losses.mean()), rel=1e-3)
    return found


def test_the_untrained_scale_is_chosen_on_the_other_split(finished, files, model):
    _, results, _ = finished
    tried = results["untrained_scales_tried"]["own"]
    assert tried == tried_scales(files[1]["own"], "train", 3, model)
    assert cell(results, "plain", "own")["untrained_scale"] == float(min(tried, key=tried.get))


def test_test_rows_are_measured_and_val_chooses(files, model, tmp_path):
    (section,) = load_dataset(files[1]["own"]).sections
    items = [Item(i.index, i.labels, "test" if i.index < 3 else i.split) for i in section.items]
    own = tmp_path / "own.json"
    save_dataset(own, [Section(section.metadata, section.vectors, items)])
    adapters = {"plain": files[0]["plain"]}
    settings = settings_for((adapters, {"own": str(own)}), split="test")
    results = json.loads(Loss.run(settings, tmp_path / "r", model).read_text())
    rows = read_jsonl(tmp_path / "r/examples.jsonl")
    assert {row["label"] for row in rows} == {label for labels in LABELS[:3] for label in labels}
    assert results["untrained_scales_tried"]["own"] == tried_scales(own, "val", 2, model)


@pytest.mark.parametrize("killed_at", [1, 9, 20])
def test_a_killed_run_goes_on_to_the_same_bytes(finished, files, model, tmp_path, killed_at):
    folder, _, _ = finished
    losses, calls = held_out.LossMeter.losses, []

    def dying(self, *arguments):
        calls.append(arguments)
        if len(calls) > killed_at:
            raise KeyboardInterrupt
        return losses(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out.LossMeter, "losses", dying)
        with pytest.raises(KeyboardInterrupt):
            Loss.run(settings_for(files), tmp_path / "r", model)
    assert len(read_jsonl(tmp_path / "r/rows.jsonl")) == killed_at
    Loss.run(settings_for(files), tmp_path / "r", model)
    for name in ("results.json", "examples.jsonl"):
        assert (tmp_path / "r" / name).read_bytes() == (folder / name).read_bytes()
    with pytest.raises(ConfigError, match="seed 0; now it is 1"):
        Loss.run(settings_for(files, seed=1), tmp_path / "r", model)


def test_an_adapter_of_another_prompt_is_refused_and_limits_hold(files, model, tmp_path):
    adapter = load_adapter(files[0]["plain"])
    bound = bind(model, SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer), 1)
    adapter.binding = bound.model_copy(update={"mean_embedding_norm": 99.0})
    adapter.save(tmp_path / "other.safetensors")
    changed = settings_for(files, adapters={"other": str(tmp_path / "other.safetensors")})
    with pytest.raises(BindingError):
        Loss.run(changed, tmp_path / "a", model)
    with pytest.raises(DataError, match="1 vectors with the split"):
        Loss.run(settings_for(files, limit=1), tmp_path / "b", model)
    with pytest.raises(ValueError, match="untrained is reserved for a control"):
        settings_for(files, adapters={"untrained": "x"})
    with pytest.raises(ValueError, match="at least 1 item"):
        settings_for(files, datasets={})


def test_an_evaluation_resumes_with_the_same_weights_alone(files, golden_dir, tmp_path):
    model = Path(shutil.copytree(golden_dir / "model", tmp_path / "model"))
    adapters, datasets = files
    one = ({"plain": adapters["plain"]}, {"own": datasets["own"]})
    settings = settings_for(one, model=str(model), dtype="float32", untrained_scales=(1.0,))
    first = Loss.run(settings, tmp_path / "r").read_bytes()
    rows = tmp_path / "r/rows.jsonl"
    lines = rows.read_text().splitlines(keepends=True)

    rows.write_text("".join(lines[:-2]))
    assert Loss.run(settings, tmp_path / "r").read_bytes() == first
    assert rows.read_text().splitlines(keepends=True) == lines

    rows.write_text("".join(lines[:-2]))
    nudge_weight(model)
    with pytest.raises(ConfigError, match="holds an evaluation with different model weights"):
        Loss.run(settings, tmp_path / "r")
    assert rows.read_text() == "".join(lines[:-2])
