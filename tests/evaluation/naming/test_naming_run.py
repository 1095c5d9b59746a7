from __future__ import annotations

import json
import shutil
from collections import Counter
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from naming_data import NAMES, write_naming_data
from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.config.evaluation.naming import NamingSettings
from selfie_adapters.config.labelling import UNTRAINED_SCALES
from selfie_adapters.dataset import load_dataset
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation import controls
from selfie_adapters.evaluation.folder import EvaluationFolder
from selfie_adapters.evaluation.naming import conditions as naming_conditions
from selfie_adapters.evaluation.naming import retrieval as naming_retrieval
from selfie_adapters.evaluation.naming.protocol import NamingProtocol
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.inference.logit_lens import lens_words
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import SoftPrompt
from selfie_adapters.statistics import wilson
from selfie_adapters.training import label_losses

CONDITIONS = [
    "adapter",
    "zero vector",
    "shuffled",
    "random",
    "untrained",
    "logit lens",
    "cosine",
    "ridge probe",
]


@pytest.fixture(scope="module", autouse=True)
def small():
    """Few tokens, small batches, three candidates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "MAX_NEW_TOKENS", 4)
        patch.setattr(naming_conditions, "BATCH", 5)
        patch.setattr(naming_retrieval, "CANDIDATES", 3)
        yield


@pytest.fixture(scope="module")
def settings(golden_dir, model, tmp_path_factory):
    """The label of one vector without a concept is what states that there is none."""
    folder = tmp_path_factory.mktemp("naming")
    adapter = str(golden_dir / "adapters/full_rank_norm.safetensors")
    source = write_naming_data(folder / "first")
    vector = load_dataset(source).sections[4].vectors[3:4]
    said = Labeller(model, load_adapter(adapter)).label(vector, max_new_tokens=4)[0][0].text
    source = write_naming_data(folder / "second", no_concept=said.upper())
    return NamingSettings(source=source, model="given", adapter=adapter, retrieval=6)


@pytest.fixture(scope="module")
def finished(settings, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "r"
    path = NamingProtocol.run(settings, folder, model)
    return folder, json.loads(path.read_text()), read_jsonl(folder / "labels.jsonl")


def rows_of(rows, dataset, layer, condition):
    wanted = (dataset, layer, condition)
    found = [r for r in rows if (r["dataset"].split("@")[0], r["layer"], r["condition"]) == wanted]
    return [row["generated"] for row in found]


def test_sections_are_by_position_and_block_and_have_every_condition(finished):
    _, results, rows = finished
    places = [(one["position"], one["layer"]) for one in results["sections"]]
    assert places == [("-1", 0), ("-1", 2), ("name", 0), ("name", 2)]
    for one in results["sections"]:
        assert [found["condition"] for found in one["conditions"]] == CONDITIONS
        assert {found["topics"] for found in one["conditions"]} == {6}
        assert {found["vectors"] for found in one["conditions"]} == {
            12 if one["position"] == "name" else 6
        }
    counts = Counter((row["position"], row["condition"]) for row in rows)
    assert counts["name", "ridge probe"] == 24
    assert counts["null", "adapter"] == 8  # of the test split alone
    assert {row["name"] for row in rows} == {*NAMES[:6], None}


def test_the_labels_are_those_of_the_vectors(finished, settings, model):
    _, _, rows = finished
    dataset = load_dataset(settings.source)
    adapter = load_adapter(settings.adapter)
    vectors = dataset.sections[1].vectors[:12].float()  # the name's token, block 2, test rows
    labeller = Labeller(model, adapter)

    def labels(some):
        return [one[0].text for one in labeller.label(some, max_new_tokens=4)]

    own = rows_of(rows, "own_at_name", 2, "adapter")
    assert own == labels(vectors)
    zero = labels(torch.zeros(1, 48))
    assert rows_of(rows, "own_at_name", 2, "zero vector") == zero * 12
    assert rows_of(rows, "own_at_name", 2, "logit lens") == lens_words(model, vectors)
    random = rows_of(rows, "own_at_name", 0, "random")
    assert random == rows_of(rows, "own_at_name", 2, "random")  # lengths do not matter here
    assert random[:6] == rows_of(rows, "own_at_-1", 0, "random")
    assert random != own
    shuffled = rows_of(rows, "own_at_name", 2, "shuffled")
    for place, label in enumerate(shuffled):
        assert label in [text for other, text in enumerate(own) if other // 2 != place // 2]


def test_the_untrained_scale_has_the_least_loss_on_validation_vectors(finished, settings, model):
    _, results, rows = finished
    dataset = load_dataset(settings.source)
    section = results["sections"][0]  # the last token, block 0
    vectors, names = dataset.sections[2].vectors[6:9].float(), NAMES[6:9]
    norm = float(model.embedding(torch.arange(261).unsqueeze(0)).norm(dim=-1).mean())
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    for scale in UNTRAINED_SCALES:
        plain = create_adapter("scale_only", 48, init_scale=scale * norm)
        with torch.no_grad():
            loss = label_losses(model, prompt, plain, vectors, names).mean()
        assert section["untrained_scales"][f"{scale:g}"] == pytest.approx(float(loss), rel=1e-3)
    best = min(UNTRAINED_SCALES, key=lambda scale: section["untrained_scales"][f"{scale:g}"])
    (untrained,) = [c for c in section["conditions"] if c["condition"] == "untrained"]
    assert f"unit vector × {best:g} mean" in untrained["meaning"]
    labeller = Labeller(model, create_adapter("scale_only", 48, init_scale=best * norm))
    found = labeller.label(dataset.sections[2].vectors[:6].float(), max_new_tokens=4)
    expected = [labels[0].text for labels in found]
    assert rows_of(rows, "own_at_-1", 0, "untrained") == expected


def test_silence_is_counted_where_there_is_a_concept_and_where_there_is_none(finished, settings):
    _, results, rows = finished
    no_concept = results["no_concept"].casefold()
    null = rows_of(rows, "own_at_null", 2, "adapter")
    shown = sum(label.casefold() != no_concept for label in null)
    assert shown < 8
    found = results["without_concept"]["shown"]
    expected = wilson(shown, 8)
    assert (found["mean"], found["low"], found["high"]) == (
        expected.mean,
        expected.low,
        expected.high,
    )
    assert results["without_concept"]["by_layer"][0]["layer"] == 2
    assert not results["calibrated"]
    for row in rows:
        assert row["shown"] == (row["generated"].casefold() != no_concept)


def test_retrieval_is_by_gain_and_by_each_baselines_score(finished, settings, model):
    _, results, _ = finished
    dataset = load_dataset(settings.source)
    adapter = load_adapter(settings.adapter)
    section = results["sections"][1]  # the last token, block 2
    plain, spelled = section["retrieval"]
    assert (plain["control"], plain["candidates"], plain["vectors"]) == ("none", 3, 6)
    assert spelled["control"] == "spelling"
    groups = naming_retrieval.sampled_groups(NAMES[:6], 6, 0)
    assert sorted(row for group in groups for row in group) == list(range(6))
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    vectors = dataset.sections[3].vectors.float()
    hits = 0
    for group in groups:
        names = [NAMES[row] for row in group]
        for place, row in enumerate(group):
            same = vectors[[row] * 3]
            with torch.no_grad():
                zero = label_losses(model, prompt, adapter, 0 * same, names)
                gain = zero - label_losses(model, prompt, adapter, same, names)
            hits += int(gain.argmax()) == place
    assert plain["first"]["adapter"]["mean"] == pytest.approx(hits / 6)
    assert plain["first"]["zero vector"]["mean"] == pytest.approx(1 / 3)
    assert {*plain["first"]} == {*CONDITIONS}
    assert {*spelled["first"]} == {*CONDITIONS} - {"shuffled", "random"}
    minus = {one["second"]: one for one in plain["comparisons"]}
    assert {*minus} == {*CONDITIONS} - {"adapter"}
    for name, one in minus.items():
        difference = plain["first"]["adapter"]["mean"] - plain["first"][name]["mean"]
        assert one["difference"]["mean"] == pytest.approx(difference)
        assert one["difference"]["n"] == 6
        assert one["p"] <= one["p_holm"] <= 1


def test_positions_pool_their_blocks_and_topics_count_once(finished):
    _, results, rows = finished
    assert [(one["position"], one["layers"]) for one in results["positions"]] == [
        ("-1", [0, 2]),
        ("name", [0, 2]),
    ]
    (adapter, *_) = results["positions"][1]["conditions"]
    assert (adapter["vectors"], adapter["topics"]) == (24, 6)
    wrong = [
        row["verdict"] == "wrong"
        for row in rows
        if row["condition"] == "adapter" and row["position"] == "name"
    ]
    assert adapter["share"]["wrong"]["mean"] == pytest.approx(sum(wrong) / 24)
    assert adapter["share"]["wrong"]["n"] == 6
    beaten = [pair for pair in results["positions"][1]["comparisons"] if pair["measure"] == "exact"]
    assert [pair["second"] for pair in beaten] == CONDITIONS[1:]


def test_a_calibration_beside_the_adapter_withholds_labels(settings, model, tmp_path):
    """Its threshold is the median gain of the labels at one place: half of them are shown."""
    adapter = load_adapter(settings.adapter)
    vectors = load_dataset(settings.source).sections[2].vectors[:6].float()
    found = Labeller(model, adapter).label(vectors, max_new_tokens=4)
    gains = sorted(labels[0].gain for labels in found)
    middle = (gains[2] + gains[3]) / 2
    place = {"weights": {"gain": 1.0}, "intercept": -middle, "threshold": 0.5}
    never = {"weights": {}, "intercept": 0.0, "threshold": None}
    drawing = {"scales": [1.0], "samples": 1, "best_of": False, "temperature": 0.0, "top_p": 1.0}
    drawing |= {"repetition_penalty": 1.0, "max_new_tokens": 30}
    drawing |= {"template": None, "placeholder": None}
    confidence = {**never, "settings": drawing, "measured": {}}
    confidence["places"] = [{**place, "layer": 0, "position": "-1", "measured": {}}]
    copied = Path(shutil.copy(settings.adapter, tmp_path / "adapter.safetensors"))
    (tmp_path / "adapter.confidence.json").write_text(json.dumps(confidence))
    changed = settings.model_copy(update={"adapter": str(copied), "retrieval": 0})
    results = json.loads(NamingProtocol.run(changed, tmp_path / "r", model).read_text())
    assert results["calibrated"]
    shares = {
        (one["position"], one["layer"]): one["conditions"][0]["share"]["shown"]["mean"]
        for one in results["sections"]
    }
    assert shares == {("-1", 0): 0.5, ("-1", 2): 0, ("name", 0): 0, ("name", 2): 0}
    assert results["without_concept"]["shown"]["mean"] == 0
    first = results["sections"][0]["conditions"]
    assert first[0]["share"]["right or related, of the shown"]["n"] == 3
    assert first[-1]["share"]["shown"]["mean"] == 1  # a ridge probe withholds nothing


def test_a_run_killed_thrice_resumes_to_the_same_bytes(finished, settings, model, tmp_path):
    folder, _, _ = finished
    add, kept = EvaluationFolder.add, 0

    def dying(self, key, row):
        if len(self.rows) == kept:
            raise KeyboardInterrupt
        add(self, key, row)

    for kept in (1, 12, 40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(EvaluationFolder, "add", dying)
            with pytest.raises(KeyboardInterrupt):
                NamingProtocol.run(settings, tmp_path / "r", model)
        assert len(read_jsonl(tmp_path / "r/rows.jsonl")) == kept
    NamingProtocol.run(settings, tmp_path / "r", model)
    for name in ("results.json", "labels.jsonl"):
        assert (tmp_path / "r" / name).read_bytes() == (folder / name).read_bytes()
    with pytest.raises(ConfigError, match="seed 0; now it is 1"):
        NamingProtocol.run(settings.model_copy(update={"seed": 1}), tmp_path / "r", model)


def test_blocks_and_topics_can_be_fewer_and_what_is_not_there_is_refused(settings, model, tmp_path):
    few = settings.model_copy(update={"layers": "1:", "limit": 2, "retrieval": 0})
    found = json.loads(NamingProtocol.run(few, tmp_path / "a", model).read_text())
    assert [one["layer"] for one in found["sections"]] == [2, 2]
    assert all(one["retrieval"] == [] for one in found["sections"])
    names = {row["name"] for row in read_jsonl(tmp_path / "a/labels.jsonl")}
    assert len(names - {None}) == 2
    with pytest.raises(ConfigError, match="has the blocks 0, 2"):
        NamingProtocol.run(settings.model_copy(update={"layers": "1"}), tmp_path / "b", model)
    with pytest.raises(DataError, match="1 topics cannot be shuffled"):
        NamingProtocol.run(settings.model_copy(update={"limit": 1}), tmp_path / "c", model)
    with pytest.raises(DataError, match=r'own_at_name@l0: 0 vectors with the split "train"'):
        NamingProtocol.run(settings.model_copy(update={"split": "train"}), tmp_path / "d", model)


def test_other_layers_of_the_same_folder_reuse_what_is_measured(
    finished, settings, model, tmp_path
):
    folder, _, _ = finished
    for layers, measured in (("0", [0, 0]), ("2", [2, 2]), (None, [0, 2, 0, 2])):
        changed = settings.model_copy(update={"layers": layers})
        found = json.loads(NamingProtocol.run(changed, tmp_path / "r", model).read_text())
        assert [one["layer"] for one in found["sections"]] == measured
    assert len(read_jsonl(tmp_path / "r/rows.jsonl")) == len(read_jsonl(folder / "rows.jsonl"))
    for name in ("results.json", "labels.jsonl"):
        assert (tmp_path / "r" / name).read_bytes() == (folder / name).read_bytes()


def test_results_of_earlier_releases_are_shown(finished):
    _, results, _ = finished
    old = deepcopy(results)
    del old["settings"]["adapters"]
    for place in (*old["sections"], *old["positions"]):
        del place["recipes"]
        for one in place.get("retrieval", ()):
            del one["recipes"], one["comparisons"]
            one["adapter_minus"] = {}
    now, before = ([*NamingProtocol.report(one)] for one in (results, old))
    titles = [one.title for one in now if isinstance(one, Table)]
    shown = [one.title for one in before if isinstance(one, Table)]
    assert shown == [one for one in titles if not one.endswith(", points")]
    assert before[-1] == now[-1]


def test_a_damaged_row_is_named(finished, settings, model, tmp_path):
    folder, _, _ = finished
    lines = (folder / "rows.jsonl").read_text().splitlines(keepends=True)
    row = json.loads(lines[1])
    row["found"] = row["found"][1:]
    (tmp_path / "r").mkdir()
    (tmp_path / "r/config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "r/rows.jsonl").write_text(lines[0] + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"rows.jsonl, line 2: .* results; .* are expected"):
        NamingProtocol.run(settings, tmp_path / "r", model)
