"""The inversion protocol on a tiny model: rows, shares, comparisons, resuming."""

from __future__ import annotations

import json

import numpy as np
import pytest

from selfie_adapters.adapters import load_adapter
from selfie_adapters.config.evaluation.inversion import InversionSettings
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation import controls
from selfie_adapters.evaluation.inversion.protocol import MEASURES, Inversion
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.labelling import Labeller
from selfie_adapters.sources.topics.reading import topic_texts, topic_vectors
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.statistics import wilson

GLOSSES = {
    "owl": "a bird that hunts at night",
    "bee": "an insect that makes honey",
    "tin": "a soft metal",
    "gnu": "a large antelope",
}
CONDITIONS = [
    "adapter",
    "another description's label",
    "adapter, named prompt",
    "logit lens",
    "cosine",
    "ridge probe",
]


@pytest.fixture(scope="module", autouse=True)
def short_labels():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "MAX_NEW_TOKENS", 4)
        yield


@pytest.fixture(scope="module")
def settings(golden_dir, tmp_path_factory):
    rows = [
        {"name": name, "labels": [name, f"{name}, {gloss}"], "split": "test"}
        for name, gloss in GLOSSES.items()
    ]
    rows += [{"name": f"thing {i}", "split": "train"} for i in range(6)]
    rows.append({"name": "can", "labels": ["can", "can, a can for food"], "split": "test"})
    file = tmp_path_factory.mktemp("topics") / "topics.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return InversionSettings(
        topics=str(file),
        model="given",
        adapter=str(golden_dir / "adapters/full_rank_norm.safetensors"),
        layers="0,2",
        training=5,
        batch_size=3,
    )


@pytest.fixture(scope="module")
def finished(settings, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "r"
    path = Inversion.run(settings, folder, model)
    return folder, json.loads(path.read_text()), read_jsonl(folder / "labels.jsonl")


def rows_of(rows, layer, condition):
    return [one for one in rows if (one["layer"], one["condition"]) == (layer, condition)]


def test_labels_are_of_the_descriptions_states(finished, settings, model):
    _, results, rows = finished
    assert results["counts"] == {
        "descriptions": 4,
        "topics_whose_descriptions_all_name_them": 1,
        "training": 5,
    }
    told = [Topic((name,), name=gloss) for name, gloss in GLOSSES.items()]
    texts = topic_texts(model, told, "Tell me about {}.", results["chat"])
    assert not any(name in text for text, name in zip(texts, GLOSSES, strict=True))
    states = topic_vectors(model, texts, [2])[:, 0]
    expected = Labeller(model, load_adapter(settings.adapter)).label(states, max_new_tokens=4)
    found = rows_of(rows, 2, "adapter")
    assert [one["label"] for one in found] == [labels[0].text for labels in expected]
    assert [one["description"] for one in found] == [*GLOSSES.values()]


def test_shares_are_of_the_rows_and_every_condition_has_the_same_descriptions(finished):
    _, results, rows = finished
    assert [block["layer"] for block in results["blocks"]] == [0, 2]
    for block in results["blocks"]:
        assert [one["condition"] for one in block["conditions"]] == CONDITIONS
        for one in block["conditions"]:
            mine = rows_of(rows, block["layer"], one["condition"])
            assert [row["name"] for row in mine] == [*GLOSSES]
            for measure in MEASURES:
                hits = sum(row[measure] for row in mine)
                assert one["share"][measure] == pytest.approx(vars(wilson(hits, 4)))
    moved = [row["label"] for row in rows_of(rows, 2, "another description's label")]
    own = [row["label"] for row in rows_of(rows, 2, "adapter")]
    assert set(moved) <= set(own)


def test_comparisons_are_one_family_over_blocks(finished):
    _, results, rows = finished
    pairs = [pair for block in results["blocks"] for pair in block["comparisons"]]
    named = [pair for pair in pairs if pair["measure"] == "names it"]
    assert len(named) == 2 * 4  # the named prompt is no rival
    for pair in named:
        values = [
            [row["names it"] for row in rows_of(rows, pair["layer"], condition)]
            for condition in (pair["first"], pair["second"])
        ]
        difference = np.mean(np.array(values[0], float) - np.array(values[1], float))
        assert pair["difference"]["mean"] == pytest.approx(difference)
        assert pair["p_holm"] >= pair["p"]
    tables = [*Inversion.report(results)]
    assert all(isinstance(one, Table) for one in tables)
    assert [one.title[:7] for one in tables] == ["block 0"] * 3 + ["block 2"] * 3
    shares, compared, either = tables[3:]
    assert [row[0] for row in shares.rows] == CONDITIONS
    assert list(compared.columns) == ["adapter minus", "names it, points", "repeats a word, points"]
    # each with its adjusted p value; the named prompt is no rival
    assert [row[0] for row in compared.rows] == [
        one for one in CONDITIONS[1:] if "named" not in one
    ]
    (pair,) = (one for one in named if (one["second"], one["layer"]) == ("ridge probe", 2))
    cell = compared.rows[-1][1]
    assert cell.startswith(f"{100 * pair['difference']['mean']:+.0f} [")
    assert cell.endswith(f"\np {pair['p_holm']:.2f}")
    assert [row[0] for row in either.rows] == ["adapter: repeats a word"]


def test_a_finished_run_labels_nothing_again(finished, settings, model, monkeypatch):
    folder, _, _ = finished
    before = (folder / "results.json").read_bytes()
    monkeypatch.setattr(controls.SoftTokenReader, "words", None)
    Inversion.run(settings, folder, model)
    assert (folder / "results.json").read_bytes() == before
    with pytest.raises(ConfigError, match="limit"):
        Inversion.run(settings.model_copy(update={"limit": 3}), folder, model)


def test_what_cannot_be_read_is_refused_in_one_line(settings, model, tmp_path):
    with pytest.raises(DataError, match="at least 2 are needed"):
        Inversion.run(settings.model_copy(update={"split": "val"}), tmp_path / "a", model)
    with pytest.raises(ConfigError, match="needs --adapter"):
        Inversion.run(settings.model_copy(update={"adapter": None}), tmp_path / "b", model)
    with pytest.raises(ConfigError, match="layers"):
        Inversion.run(settings.model_copy(update={"layers": "0,77"}), tmp_path / "c", model)
