import json

import pytest
import torch

from selfie_adapters.config.evaluation.detection import DetectionSettings
from selfie_adapters.errors import ConfigError, DataError, DownloadError
from selfie_adapters.evaluation.baselines import RidgeProbe
from selfie_adapters.evaluation.detection.judging import read_answer
from selfie_adapters.evaluation.detection.protocol import Detection
from selfie_adapters.evaluation.detection.windows import read_texts
from selfie_adapters.evaluation.tables import Table
from selfie_adapters.files.json_lines import read_jsonl
from selfie_adapters.sources.labels.delphi import read_delphi, read_delphi_scores
from tiny_sae import tiny_sae

LATENTS = (3, 9, 17, 20)
WORDS = "owls tea kings rain stone river copper seven blue yellow night winter bread salt".split()
WINDOW, THRESHOLD = 24, 3.0


class FakeJudge:
    """Answers by `knows(label, text)`; None is an answer that cannot be used."""

    name = "fake"
    weights = None

    def __init__(self, knows, fails_after=None):
        self.knows, self.fails_after, self.asked = knows, fails_after, 0

    def answer(self, requests, done=lambda _number, _text: None):
        answers = []
        for number, request in enumerate(requests):
            if self.asked == self.fails_after:
                raise DownloadError("no answer")
            self.asked += 1
            head, _, texts = request.messages[0].content.partition("\n\n1. ")
            label = head.partition("Description: ")[2]
            shown = [line.partition(". ")[2] for line in ("1. " + texts).split("\n")]
            found = [self.knows(label, text) for text in shown]
            answers.append("?" if None in found else ", ".join(map(str, found)) + "]")
            done(number, answers[-1])
        return answers


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detection")
    sae = tiny_sae("jumprelu", "blocks.1.hook_resid_post", d_in=48)
    sae.save_model(folder / "sae")
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(WORDS), (30, 12), generator=generator).tolist()
    (folder / "texts.txt").write_text("\n".join(" ".join(WORDS[i] for i in row) for row in picks))
    (folder / "labels.json").write_text(json.dumps({str(i): f"latent {i}" for i in LATENTS}))
    (folder / "other.json").write_text(json.dumps({str(i): f"other {i}" for i in LATENTS}))
    return folder, sae


@pytest.fixture
def settings(files):
    folder, _ = files

    def make(**changes):
        values = {
            "texts": str(folder / "texts.txt"),
            "labels": {"mine": str(folder / "labels.json")},
            "sae": str(folder / "sae"),
            "model": "unused",
            "windows": 6,
            "window": WINDOW,
            "shown": 3,
            "threshold": THRESHOLD,
        }
        return DetectionSettings.model_validate(values | changes)

    return make


@pytest.fixture(scope="module")
def truth(files, model):
    """window text → the latents that it activates, each text through the network alone.

    The golden tokenizer puts no begin token before a plain text."""
    folder, sae = files
    tokenizer, found = model.tokenizer, {}
    for text in (folder / "texts.txt").read_text().split("\n"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        with torch.no_grad():
            states = model.network(torch.tensor([ids]), output_hidden_states=True).hidden_states
            values = sae.encode(states[2])[0]
        for start in range(0, len(ids), WINDOW):
            shown = " ".join(tokenizer.decode(ids[start : start + WINDOW]).split())
            peaks = values[start : start + WINDOW].amax(dim=0)
            if len(ids) - start < WINDOW / 2:
                continue
            assert shown not in found
            found[shown] = {i for i in LATENTS if peaks[i] > THRESHOLD}
    return found


def run(settings, folder, model, judge):
    return json.loads(Detection.run(settings, folder, model, chat=judge).read_text())


def of(results, name):
    (found,) = [one for one in results["conditions"] if one["condition"] == name]
    return found


def number(label):
    """The number at the end of a label of the files; -1 for labels that others made."""
    last = label.split()[-1] if label.startswith("latent") else "-1"
    return int(last)


def test_a_judge_that_knows_is_right_and_shuffled_labels_get_what_they_get_by_hand(
    settings, tmp_path, model, truth
):
    judge = FakeJudge(lambda label, text: int(number(label) in truth[text]))
    results = run(settings(), tmp_path / "r", model, judge)
    assert results["counts"]["latents"] == 4
    found = of(results, "mine")
    for score in ("balanced_accuracy", "recall", "specificity", "precision"):
        assert found[score]["mean"] == 1.0
        assert found[score]["high"] == 1.0
        assert 0.4 < found[score]["low"] < 1  # four latents say little
        assert found[score]["n"] == 4
    rows = read_jsonl(tmp_path / "r/judgements.jsonl")
    by_latent = {}
    for row in rows:
        fits = row["latent"] in truth[" ".join(row["window"].split())]
        assert row["fits"] == fits  # activations by the network alone
        if row["condition"] == "mine: shuffled":
            assert row["label"] != f"latent {row['latent']}"
            right = (number(row["label"]) in truth[" ".join(row["window"].split())]) == fits
            by_latent.setdefault(row["latent"], []).append(right)
    by_hand = sum(sum(one) / len(one) for one in by_latent.values()) / 4
    assert of(results, "mine: shuffled")["balanced_accuracy"]["mean"] == pytest.approx(by_hand)
    pair = results["comparisons"][0]
    assert (pair["first"], pair["second"]) == ("mine", "mine: shuffled")
    assert pair["difference"]["mean"] == pytest.approx(1 - by_hand)
    counts = {}
    for row in rows:
        counts.setdefault((row["condition"], row["latent"]), []).append(row["fits"])
    assert all(2 * sum(of) == len(of) for of in counts.values())  # as many fit as do not


@pytest.mark.parametrize(
    ("answer", "accuracy", "recall", "specificity"),
    [(1, 0.5, 1.0, 0.0), (0, 0.5, 0.0, 1.0), (None, 0.0, 0.0, 0.0)],
)
def test_a_judge_without_knowledge_gets_chance_and_no_difference(
    settings, tmp_path, model, answer, accuracy, recall, specificity
):
    results = run(settings(), tmp_path / "r", model, FakeJudge(lambda _label, _text: answer))
    found = of(results, "mine")
    assert found["balanced_accuracy"]["mean"] == accuracy
    assert (found["recall"]["mean"], found["specificity"]["mean"]) == (recall, specificity)
    assert (found["precision"] is None) == (answer != 1)
    assert found["unusable_answers"] == (results["counts"]["windows"] if answer is None else 0)
    assert results["comparisons"][0]["difference"]["mean"] == 0
    assert results["comparisons"][0]["difference"]["low"] < 0
    printed = [one for one in Detection.report(results) if isinstance(one, str)]
    assert ("Name a larger chat model" in printed[0]) == (answer is None)


def test_fuzzing_marks_tokens_that_activate_or_others(settings, tmp_path, model, truth):
    seen = []
    judge = FakeJudge(lambda _label, text: seen.append(text) or 1)
    results = run(settings(task="fuzzing"), tmp_path / "r", model, judge)
    rows = [r for r in read_jsonl(tmp_path / "r/judgements.jsonl") if r["condition"] == "mine"]
    assert rows
    assert all("<<" in row["window"] for row in rows)
    for row in rows:
        bare = " ".join(row["window"].replace("<<", "").replace(">>", "").split())
        assert row["latent"] in truth[bare]  # all windows activate the latent
    assert sum(row["fits"] for row in rows) * 2 == len(rows)
    assert of(results, "mine")["balanced_accuracy"]["mean"] == 0.5


def test_two_files_of_labels_are_judged_on_the_same_windows(settings, files, tmp_path, model):
    folder, _ = files
    both = {"mine": str(folder / "labels.json"), "theirs": str(folder / "other.json")}
    judge = FakeJudge(lambda label, _text: int(label.startswith("other")))
    results = run(settings(labels=both), tmp_path / "r", model, judge)
    names = [(one["first"], one["second"]) for one in results["comparisons"]]
    assert names[-1] == ("mine", "theirs")
    rows = read_jsonl(tmp_path / "r/judgements.jsonl")
    windows = [[r["window"] for r in rows if r["condition"] == name] for name in both]
    assert windows[0] == windows[1]


def test_a_killed_run_resumes_to_the_same_bytes_and_asks_nothing_twice(
    settings, tmp_path, model, truth
):
    def knows(label, text):
        return int(number(label) in truth[text])

    whole = FakeJudge(knows)
    run(settings(), tmp_path / "whole", model, whole)
    with pytest.raises(DownloadError):
        run(settings(), tmp_path / "r", model, FakeJudge(knows, fails_after=7))
    again = FakeJudge(knows)
    run(settings(batch_size=3), tmp_path / "r", model, again)
    assert again.asked == whole.asked - 7
    for name in ("judgements.jsonl",):
        assert (tmp_path / "r" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(ConfigError, match="windows 6; now it is 5"):
        run(settings(windows=5), tmp_path / "r", model, FakeJudge(knows))


def test_what_cannot_be_judged_is_refused(settings, tmp_path, model):
    judge = FakeJudge(lambda _label, _text: 1)
    with pytest.raises(DataError, match="latent 4 has no label"):
        run(settings(latents=[3, 4]), tmp_path / "a", model, judge)
    with pytest.raises(DataError, match="1 latents with a label"):
        run(settings(limit=1), tmp_path / "b", model, judge)
    with pytest.raises(DataError, match="0 of 4 latents have windows"):
        run(settings(threshold=1e6), tmp_path / "c", model, judge)
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(DataError, match="no documents"):
        run(settings(texts=str(tmp_path / "empty.txt")), tmp_path / "d", model, judge)


@pytest.mark.parametrize(
    "name", ["windows", "lens words", "cosine words", "a/b", "mine: shuffled", "a: same start"]
)
def test_names_that_rows_are_kept_under_are_refused(settings, name):
    with pytest.raises(ValueError, match="is reserved, or contains /"):
        settings(labels={name: "labels.json"})


def test_texts_are_lines_or_json_rows(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert read_texts(tmp_path / "a.txt") == read_texts(tmp_path / "a.jsonl") == ["one", "two"]
    (tmp_path / "b.jsonl").write_text('{"texts": "one"}\n')
    with pytest.raises(DataError, match=r'b.jsonl, line 1: "text" is expected'):
        read_texts(tmp_path / "b.jsonl")
    (tmp_path / "c.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match="line 1: not UTF-8"):
        read_texts(tmp_path / "c.txt")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1, 0, 1]", [1, 0, 1]),
        ("1,0,1] because the second", [1, 0, 1]),
        ("[0, 0, 1]", [0, 0, 1]),
        ("1 0 1", [1, 0, 1]),
        ("1, 0]", [None] * 3),
        ("1, 0, 1, 1]", [None] * 3),
        ("1, 2, 0]", [None] * 3),
        ("yes, no, yes]", [None] * 3),
        ("", [None] * 3),
    ],
)
def test_answers_are_read_or_all_dropped(text, expected):
    assert read_answer(text, 3) == expected


def test_delphis_files_hold_the_same_labels_and_scores(settings, tmp_path, model, truth):
    judge = FakeJudge(lambda label, text: int("latent" in label and number(label) in truth[text]))
    results = run(settings(), tmp_path / "r", model, judge)
    for name in ("mine", "lens words", "top tokens"):
        folder = tmp_path / "r/delphi" / name.replace(" ", "_")
        labels = read_delphi(folder / "explanations").labels
        rows = read_jsonl(tmp_path / "r/judgements.jsonl")
        assert labels == {r["latent"]: [r["label"]] for r in rows if r["condition"] == name}
        scores = read_delphi_scores(folder / "scores", "layers.1")["detection"]
        mean = of(results, name)["balanced_accuracy"]["mean"]
        assert sum(scores.values()) / len(scores) == pytest.approx(mean)
    assert not (tmp_path / "r/delphi/mine_shuffled").exists()


def test_labels_that_need_no_adapter_are_judged_on_the_same_windows(
    settings, files, tmp_path, model
):
    folder, sae = files
    results = run(settings(), tmp_path / "r", model, FakeJudge(lambda _label, _text: 1))
    rows = read_jsonl(tmp_path / "r/judgements.jsonl")
    by_condition = {
        name: [r for r in rows if r["condition"] == name]
        for name in ("mine", "lens words", "top tokens")
    }
    shown = [[(r["latent"], r["window"]) for r in of] for of in by_condition.values()]
    assert shown[0] == shown[1] == shown[2]
    pairs = {(one["first"], one["second"]) for one in results["comparisons"]}
    assert {("mine", "lens words"), ("mine", "top tokens")} <= pairs
    network, tokenizer = model.network, model.tokenizer
    for row in by_condition["lens words"]:
        state = sae.W_dec[row["latent"]].detach()
        with torch.no_grad():
            best = network.lm_head(network.model.norm(state)).topk(12).indices.tolist()
        words = dict.fromkeys(tokenizer.decode([token]).strip() for token in best)
        assert row["label"] == ", ".join([word for word in words if word][:3])
    # Top tokens: activating tokens of windows that are not among those shown for the latent.
    for latent in LATENTS:
        own = [r for r in by_condition["top tokens"] if r["latent"] == latent]
        judged = {" ".join(r["window"].split()) for r in own}
        best: dict[str, float] = {}
        for text in (folder / "texts.txt").read_text().split("\n"):
            ids = tokenizer.encode(text, add_special_tokens=False)
            with torch.no_grad():
                hidden = network(torch.tensor([ids]), output_hidden_states=True).hidden_states
                values = sae.encode(hidden[2])[0, :, latent].tolist()
            for start in range(0, len(ids), WINDOW):
                if " ".join(tokenizer.decode(ids[start : start + WINDOW]).split()) in judged:
                    continue
                for token, value in zip(ids[start:], values[start : start + WINDOW], strict=False):
                    word = tokenizer.decode([token]).strip()
                    best[word] = max(value, best.get(word, 0.0))
        for word in own[0]["label"].split(", "):
            assert best[word] > 0


def test_labels_that_begin_alike_are_judged_on_the_latents_that_have_one(
    settings, files, tmp_path, model
):
    folder, _ = files
    texts = {"3": "latent 3", "9": "late night", "17": "??", "20": "x 20", "30": "last"}
    (folder / "alike.json").write_text(json.dumps(texts))
    changes = {"labels": {"mine": str(folder / "alike.json")}, "latents": list(LATENTS)}
    judge = FakeJudge(lambda label, _text: int(label in ("latent 3", "late night")))
    results = run(settings(**changes), tmp_path / "r", model, judge)
    rows = read_jsonl(tmp_path / "r/judgements.jsonl")
    labels = {r["latent"]: r["label"] for r in rows if r["condition"] == "mine: same start"}
    # "late" begins "latent", so the last one of the file is left; "??" has none, nor "x 20".
    assert labels == {3: "last", 9: "last"}
    assert of(results, "mine: same start")["latents"] == 2
    assert of(results, "mine")["latents"] == 4
    (pair,) = (one for one in results["comparisons"] if one["second"] == "mine: same start")
    assert pair["difference"]["n"] == 2
    assert pair["difference"]["mean"] == 0.0  # "yes" to all windows, or to none: a half each
    table = next(one for one in Detection.report(results) if isinstance(one, Table))
    assert table.caption == "mine: same start: 2 latents"
    differences = [one for one in Detection.report(results) if isinstance(one, Table)][1]
    assert [row[0] for row in differences.rows] == [
        *("shuffled", "same start", "lens words", "cosine words", "top tokens")
    ]
    lines = [one for one in Detection.report(results) if isinstance(one, str)]
    assert "not measured: ridge words (no training_labels to fit it on)" in lines


def test_words_of_a_probe_need_labels_of_other_latents(settings, files, tmp_path, model):
    folder, sae = files
    labels = {str(i): f"word {i}" for i in (0, 1, 3, 5, 8)}
    (folder / "training.json").write_text(json.dumps(labels))
    judge = FakeJudge(lambda _label, _text: 1)
    given = settings(training_labels=str(folder / "training.json"))
    results = run(given, tmp_path / "r", model, judge)
    assert results["not_measured"] == {}
    decoder = sae.W_dec.detach()
    used = [0, 1, 5, 8]  # 3 is judged
    probe = RidgeProbe(model, decoder[used], [f"word {i}" for i in used])
    rows = read_jsonl(tmp_path / "r/judgements.jsonl")
    found = {r["latent"]: r["label"] for r in rows if r["condition"] == "ridge words"}
    assert found.keys() == {*LATENTS}
    for latent, label in found.items():
        ids = probe.tokens(decoder[[latent]], 12)[0].tolist()
        words = [model.tokenizer.decode([token]).strip() for token in ids]
        assert label == ", ".join(list(dict.fromkeys(filter(None, words)))[:3])


def test_the_judge_of_likelihoods_is_calibrated_on_latents_that_it_does_not_judge(
    settings, files, tmp_path, model
):
    folder, _ = files
    section = {
        "metadata": {"dataset_name": "a", "layer": 1, "source": "s", "vector_type": "sae"},
        "vectors": [
            {"index": latent, "labels": [f"tea {latent}"], "split": split}
            for latent, split in ((3, "val"), (5, "val"), (6, "test"), (11, "val"))
        ],
    }
    (folder / "calibration.json").write_text(json.dumps([section]))
    changes = {
        "judge_by": "likelihood",
        "calibration_labels": str(folder / "calibration.json"),
        "references": 3,
    }
    path = Detection.run(settings(**changes), tmp_path / "r", model)
    results = json.loads(path.read_text())
    made = {r["key"] for r in read_jsonl(tmp_path / "r/rows.jsonl") if r["key"].startswith("gains")}
    assert made == {f"gains/{latent}" for latent in (*LATENTS, 5, 11)}  # 3 is judged, 6 is "test"
    threshold = results["calibration"]["threshold"]
    for row in read_jsonl(tmp_path / "r/judgements.jsonl"):
        assert row["answer"] == int(row["gain"] > threshold)
    assert results["calibration"]["latents"] == 2
    assert 0 <= of(results, "mine")["auroc"]["mean"] <= 1
    measures = {one["measure"] for one in results["comparisons"]}
    assert measures == {"balanced_accuracy", "auroc"}
    (text,) = [one for one in Detection.report(results) if "likelihoods" in str(one)]
    assert "chosen on 2 other latents" in text
    before = (tmp_path / "r/judgements.jsonl").read_bytes()
    rows = (tmp_path / "r/rows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "r/rows.jsonl").write_text("".join(rows[:-2]))
    Detection.run(settings(**changes), tmp_path / "r", model)
    assert (tmp_path / "r/judgements.jsonl").read_bytes() == before
    rows = [json.loads(line) for line in (tmp_path / "r/rows.jsonl").read_text().splitlines()]
    for row in rows:
        if row["key"] == "gains/9":
            row["gains"].pop()  # an earlier version had fewer conditions
    (tmp_path / "r/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match="an earlier version, .*judged fewer conditions"):
        Detection.run(settings(**changes), tmp_path / "r", model)


def test_what_a_judge_of_likelihoods_needs(settings, files, tmp_path, model):
    folder, _ = files
    with pytest.raises(ValueError, match="needs calibration_labels"):
        settings(judge_by="likelihood")
    own = {"judge_by": "likelihood", "calibration_labels": str(folder / "labels.json")}
    with pytest.raises(ValueError, match="in this process"):
        settings(**own, judge={"model": "m", "url": "http://localhost:1/v1"})
    with pytest.raises(DataError, match="no latent to calibrate the judge on"):
        Detection.run(settings(**own), tmp_path / "r", model)


def test_windows_of_an_earlier_version_are_measured_again(settings, tmp_path, model):
    judge = FakeJudge(lambda _label, _text: 1)
    run(settings(), tmp_path / "r", model, judge)
    rows = [json.loads(line) for line in (tmp_path / "r/rows.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("top_tokens", None)
    (tmp_path / "r/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="has no top tokens"):
        run(settings(), tmp_path / "r", model, judge)
