from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.config.evaluation.bridge import BridgeSettings
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.evaluation.bridge import readers as bridge_readers
from selfie_adapters.evaluation.bridge.protocol import Bridge
from selfie_adapters.evaluation.bridge.reading import plan_question
from selfie_adapters.evaluation.bridge.states import (
    MeansOfFile,
    MeansOfQuestions,
    NoMeans,
    question_states,
)
from selfie_adapters.evaluation.bridge.targets import (
    ANSWER,
    BRIDGE,
    ENTITY,
    WORDS,
    EntityTarget,
    Targets,
    Words,
)
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import SoftPrompt, bind
from selfie_adapters.model.fingerprint import mean_embedding_norm
from selfie_adapters.reading.means import read_means
from selfie_adapters.report.evaluation_section import evaluation_section
from selfie_adapters.report.pieces import Intervals
from selfie_adapters.sources.twohop import Entity, TwoHopQuestion

SAMPLES, TOKENS = 2, 5
PROMPTS = ("A sea of ab is", "The hat is", "A fee is", "An ef is")


class Knows:
    """Says what the questions want to hear, but for `wrong`."""

    name = "knows"
    weights: str | None = None

    def __init__(self, names: dict[str, str], wrong: tuple[str, ...] = ()) -> None:
        self.names, self.wrong = names, wrong
        self.asked = 0

    def answer(self, requests, done=lambda _number, _text: None):
        texts = []
        for number, request in enumerate(requests):
            self.asked += 1
            known = self.names[request.begun]
            texts.append("no idea" if request.begun in self.wrong else known)
            done(number, texts[-1])
        return texts


@pytest.fixture(scope="module")
def adapter_file(golden_dir):
    return str(golden_dir / "adapters/scalar_affine_norm.safetensors")


@torch.no_grad()
def plain_labels(model, adapter_file, question, scale=1.0, adapter=None):
    """Labels of layer × position from the question on, a position at a time, from whole passes."""
    tokenizer = model.tokenizer
    turns = [{"role": "user", "content": question.prompt}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = tokenizer.encode(text, add_special_tokens=False)
    start = len(tokenizer.encode(text[: text.index(question.prompt)], add_special_tokens=False))
    hidden: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(
            lambda _m, _a, out: hidden.append(out[0] if isinstance(out, tuple) else out)
        )
        for block in model.network.model.layers
    ]
    model.network(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    labeller = Labeller(model, adapter or load_adapter(adapter_file))
    columns = []
    for position in range(start, len(ids)):
        answers = labeller.label(
            torch.stack([states.reshape(-1, states.shape[-1])[position] for states in hidden]),
            (scale,),
            SAMPLES,
            temperature=0.7,
            max_new_tokens=TOKENS,
            seed=5,
            names=[(question.uid, layer, position) for layer in range(len(hidden))],
        )
        columns.append([[label.text for label in labels] for labels in answers])
    grid = [list(row) for row in zip(*columns, strict=True)]
    return grid, start, text


def words(grid):
    """Words of ASCII letters and digits in all labels, with how many labels hold them."""
    counts: Counter[str] = Counter()
    for row in grid:
        for cell in row:
            for text in cell:
                counts.update(set(re.findall(r"(?<!\w)[a-z0-9]+(?!\w)", text.lower())))
    return counts


@pytest.fixture(scope="module")
def plain(model, adapter_file):
    """`plain_labels` of every question, by uid."""
    made = {}
    for number, prompt in enumerate(PROMPTS):
        bare = TwoHopQuestion(f"q/{number}", "", "", Entity("", ()), Entity("", ()), "", prompt)
        made[bare.uid] = plain_labels(model, adapter_file, bare)
    return made


@pytest.fixture(scope="module")
def questions(plain):
    """Four questions whose bridges are words that their own states, or no states, write."""
    made = []
    for number, prompt in enumerate(PROMPTS):
        grid, _, _ = plain[f"q/{number}"]
        taken = {alias for one in made for alias in one.bridge.aliases}
        found = [
            word
            for word, _ in words(grid).most_common()
            if word not in taken and not re.search(rf"\b{word}\b", prompt.lower())
        ]
        alias = f"unheard{number}" if number == 2 else found[0].upper()
        # "THE" stands in the questions, so that it must not count
        bridge_entity = Entity(alias, (alias, "THE") if number == 1 else (alias,))
        made.append(
            TwoHopQuestion(
                f"q/{number}",
                "",
                "",
                bridge_entity,
                Entity("yonder", ("yonder",)),
                f"ask {number}",
                prompt,
            )
        )
    return made


@pytest.fixture(scope="module")
def file(questions, tmp_path_factory):
    path = tmp_path_factory.mktemp("questions") / "q.jsonl"
    rows = [
        {
            "uid": q.uid,
            "e1.value": "e",
            "e2.value": q.bridge.value,
            "e3.value": "yonder",
            "e2.aliases": repr((q.bridge.aliases,)),
            "r1(e1).prompt": q.bridge_prompt,
            "r2(r1(e1)).prompt": q.prompt,
        }
        for q in questions
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def knows(questions):
    return {q.bridge_prompt: q.bridge.value for q in questions} | {
        q.prompt: "yonder" for q in questions
    }


def settings_for(file, adapter_file, **changes):
    values = {
        "questions": file,
        "model": "given",
        "adapter": adapter_file,
        "samples": SAMPLES,
        "max_new_tokens": TOKENS,
        "untrained_scales": (1.0, 4.0),
        "seed": 5,
        **changes,
    }
    return BridgeSettings.model_validate(values)


@pytest.fixture(scope="module")
def finished(model, file, adapter_file, knows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bridge") / "r"
    path = Bridge.run(settings_for(file, adapter_file), folder, model, chat=Knows(knows))
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return folder, json.loads(path.read_text()), {row["key"]: row for row in rows}


def test_a_report_states_where_and_after_which_blocks_the_bridge_is_named(finished):
    folder, results, _ = finished
    found = evaluation_section(folder, "bridge", "labels-1").pieces
    decoded, where, blocks = (piece for piece in found if isinstance(piece, Intervals))
    assert [row.own for row in decoded.rows] == [
        one["condition"] == results["lead"] for one in results["conditions"] if one["decoded"]
    ]
    assert {row.condition: row.low for row in where.rows} == {
        place: one["low"] for place, one in results["by_part"].items()
    }
    assert {row.condition: row.mean for row in blocks.rows} == {
        f"block {layer}": share for layer, share in results["by_layer"].items()
    }


def test_hits_are_those_of_a_plain_loop(model, plain, questions, finished):
    _, results, rows = finished
    decoded = []
    for question in questions:
        grid, start, text = plain[question.uid]
        word = question.bridge.value.lower()
        pattern = re.compile(rf"(?<!\w){word}(?!\w)")
        hits = [[sum(bool(pattern.search(t.lower())) for t in cell) for cell in r] for r in grid]
        row = rows[f"trained/{question.uid}"]
        assert row["hits"] == hits
        assert row["labels"] == SAMPLES * len(hits) * len(hits[0])
        assert row["positions"] == list(range(start, start + len(hits[0])))
        assert (
            row["positions"][-1] == len(model.tokenizer.encode(text, add_special_tokens=False)) - 1
        )
        assert row["tokens"][0] == question.prompt[0]
        assert row["tokens"][row["last"] - start] == question.prompt[-1]
        decoded.append(any(map(any, hits)))
    assert decoded == [True, True, False, True]
    table = {one["condition"]: one for one in results["conditions"]}
    assert table["trained"]["decoded"]["mean"] == 0.75
    assert table["trained"]["decoded"]["n"] == 4
    assert table["trained"]["decoded_of_those_that_name_no_alias"]["n"] == 3


def test_untrained_reads_the_unit_vector_in_embedding_norms(
    model, adapter_file, questions, finished
):

    norm = mean_embedding_norm(model)
    plain = create_adapter("scale_only", model.d_model, init_scale=norm)
    grid, _, _ = plain_labels(model, adapter_file, questions[0], 4.0, plain)
    word = questions[0].bridge.value.lower()
    hits = [[sum(word in re.findall(r"\w+", t.lower()) for t in cell) for cell in r] for r in grid]
    assert finished[2]["untrained × 4/q/0"]["hits"] == hits


def test_every_control_reads_every_question_as_often(finished, questions):
    _, results, rows = finished
    conditions = ["trained", "random directions", "untrained × 1", "untrained × 4"]
    conditions += ["logit lens", "cosine"]
    assert [one["condition"] for one in results["conditions"]] == [*conditions, "zero vector"]
    for question in questions:
        counts = {rows[f"{c}/{question.uid}"]["labels"] for c in conditions}
        assert counts == {rows[f"zero vector/{question.uid}"]["labels"]}
    one = {c["condition"]: c["decoded"]["mean"] for c in results["conditions"]}
    assert results["not_measured"] == {"ridge probe": "no training_file to fit it on"}
    compared = [c for c in results["comparisons"] if c["second"] in one]
    assert {c["second"] for c in compared} == {*conditions[1:], "zero vector"}
    for found in compared:
        difference = found["difference"]
        assert difference["low"] <= difference["mean"] <= difference["high"]
        assert difference["mean"] == pytest.approx(one["trained"] - one[found["second"]])
        assert found["p_holm"] >= found["p"]


def test_the_zero_vector_is_one_stream_of_labels(model, adapter_file, questions, finished):
    labeller = Labeller(model, load_adapter(adapter_file))
    count = finished[2]["zero vector/q/0"]["labels"]
    labels = labeller.label(
        torch.zeros(count, model.d_model),
        temperature=0.7,
        max_new_tokens=TOKENS,
        seed=5,
        names=[("zero", i) for i in range(count)],
    )
    word = questions[0].bridge.value.lower()
    hits = sum(word in re.findall(r"\w+", one[0].text.lower()) for one in labels)
    assert sum(map(sum, finished[2]["zero vector/q/0"]["hits"])) == hits


def test_the_base_rate_is_other_bridges_on_the_same_labels(plain, questions, finished):
    """The four questions have no category, so the others are the other three bridges."""
    _, results, rows = finished
    bases = []

    def names(text):
        return set(re.findall(r"\w+", text.lower()))

    for question in questions:
        grid, _, _ = plain[question.uid]
        written = [set().union(*(names(t) for cell in row for t in cell)) for row in grid]
        others = [
            {alias.lower() for alias in other.bridge.aliases} - names(question.prompt)
            for other in questions
            if other is not question
        ]
        named = [[bool(one & row) for row in written] for one in others if one]
        row = rows[f"trained/{question.uid}"]["targets"]["bridge"]
        assert row["others"] == len(named)
        assert row["others_named"] == pytest.approx(np.mean([any(one) for one in named]))
        assert row["others_by_layer"] == pytest.approx(np.mean(named, axis=0))
        bases.append(row["others_named"])
    found = next(one for one in results["targets"] if one["target"] == "bridge")
    assert found["condition"] == "trained"
    assert found["named"]["mean"] == pytest.approx(0.75)
    assert found["base"]["mean"] == pytest.approx(np.mean(bases))
    assert found["minus_base"]["mean"] == pytest.approx(0.75 - np.mean(bases))
    assert 0 < np.mean(bases) < 1  # the labels do name other questions' words


@torch.no_grad()
def test_the_lens_gives_each_states_best_tokens(model, questions, finished):
    """From a pass of the whole model over the question, norm and head called by hand."""
    question = questions[0]
    plan = plan_question(model, question, None, "template")
    hidden: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(
            lambda _m, _a, out: hidden.append(out[0] if isinstance(out, tuple) else out)
        )
        for block in model.network.model.layers
    ]
    model.network(torch.tensor([[token.id for token in plan.plan.tokens]]))
    for hook in hooks:
        hook.remove()
    for layer, states in enumerate(hidden):
        logits = model.network.lm_head(model.network.model.norm(states.reshape(-1, 48)))
        for column, position in enumerate(plan.plan.positions):
            best = logits[position].topk(SAMPLES).indices.tolist()
            words_here = [model.tokenizer.decode([token]).strip().lower() for token in best]
            first = model.tokenizer.encode(f" {question.bridge.value}", add_special_tokens=False)
            name = model.tokenizer.decode(first[:1]).strip().lower()
            hits = sum(bool(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", w)) for w in words_here)
            assert finished[2]["logit lens/q/0"]["hits"][layer][column] == (hits if name else 0)


def test_the_entity_is_looked_for_at_its_own_tokens(model):
    def question(uid, e1, category="c"):
        return TwoHopQuestion(
            uid, category, e1, Entity("US", ("US",)), Entity("x", ("x",)), "", f"the hat of {e1} is"
        )

    one = question("a", "ab fee")
    others = [question("b", "sea"), question("c", "hat"), question("d", "far", "other")]
    plan = plan_question(model, one, "0,1", "template")
    texts = [token.text for token in plan.plan.tokens]
    assert plan.entity is not None
    first, last = plan.entity
    assert "".join(texts[first : last + 1]).strip() == "ab fee"
    assert plan.first < first
    assert last < plan.last
    found = Targets([one, *others]).of(plan)
    entity = found[ENTITY]
    assert isinstance(entity, EntityTarget)
    assert entity.aliases == ("ab fee",)
    # "hat" stands in the question, "far" is of another category
    assert entity.others == (("sea",),)
    columns = [plan.plan.positions[column] for column in entity.columns]
    assert columns == list(range(first, last + 1))
    width = len(plan.plan.positions)
    assert found[BRIDGE].columns == found[ANSWER].columns == tuple(range(width))
    labels = [[["AB  fee!"]] + [["no sea"]] * (width - 1) for _ in range(2)]
    row = entity.found(labels)
    assert row["hits"] == [[0] * len(columns)] * 2  # it is named at a token that is not its own
    assert (row["others"], row["others_named"], row["others_by_layer"]) == (1, 1.0, [1.0, 1.0])
    nowhere = plan_question(
        model,
        TwoHopQuestion("n", "", "zz", one.bridge, one.answer, "", "A hat is"),
        "0",
        "template",
    )
    assert nowhere.entity is None
    assert ENTITY not in Targets([one]).of(nowhere)


def test_words_of_the_question_are_looked_for_where_they_end(model):
    question = TwoHopQuestion(
        "w",
        "",
        "sea",
        Entity("US", ("US",)),
        Entity("x", ("x",)),
        "",
        "The meadow of shade in sea is",
    )
    plan = plan_question(model, question, "0,1", "template")
    words = Targets([question]).of(plan)[WORDS]
    assert isinstance(words, Words)
    assert words.words == ("meadow", "shade")
    texts = [token.text for token in plan.plan.tokens]
    for word, column in zip(words.words, words.columns, strict=True):
        assert "".join(texts[: plan.plan.positions[column] + 1]).endswith(word)
    labels = [[["no"] for _ in plan.plan.positions] for _ in range(2)]
    labels[0][words.columns[0]] = ["a meadow"]
    labels[1][words.columns[1]] = ["Meadow"]  # another word's
    assert words.found(labels) == {
        "hits": [[1, 0], [0, 0]],
        "named": 0.5,
        "named_by_layer": [0.5, 0.0],
        "others": 2,
        "others_named": 0.5,
        "others_by_layer": [0.0, 0.5],
    }


def test_the_mean_over_other_questions_of_the_category(model):
    """Against the states themselves: five questions with one frame, an entity token each."""

    def question(uid, e1):
        return TwoHopQuestion(
            uid, "c", e1, Entity("US", ("US",)), Entity("x", ("x",)), "", f"the hat of {e1} is"
        )

    made = [question(str(i), e1) for i, e1 in enumerate(("sea", "fee", "ab", "far", "had"))]

    def planned(one):
        return plan_question(model, one, "1", "template")

    plans = [planned(one) for one in made]
    raw = [question_states(model, plan, NoMeans()) for plan in plans]
    means = MeansOfQuestions(model, made, plans, planned, 0)
    less = question_states(model, plans[0], means)

    def at(number, position):
        return raw[number][0, plans[number].plan.positions.index(position)]

    plan = plans[0]
    assert plan.entity is not None
    for column, position in enumerate(plan.plan.positions):
        if position < plan.entity[0]:  # nothing differs before the entity
            assert not less[0, column].any()
        elif position > plan.entity[1]:
            others = [at(i, position - plan.last + plans[i].last) for i in range(1, 5)]
            expected = at(0, position) - torch.stack(others).mean(0)
            torch.testing.assert_close(less[0, column], expected, rtol=1e-4, atol=1e-4)
    alone = MeansOfQuestions(model, made[:1], plans[:1], planned, 0)
    with pytest.raises(DataError, match="no other question has a state"):
        question_states(model, plans[0], alone)


def test_the_heat_map_is_aligned_at_the_questions_last_token(finished, questions):
    _, results, rows = finished
    found = results["heat_map"]
    assert found["layers"] == [0, 1, 2]
    assert 0 in found["places"]
    trained = [rows[f"trained/{q.uid}"] for q in questions]
    for layer in found["layers"]:
        at = [row["positions"].index(row["last"]) for row in trained]
        mean = np.mean([r["hits"][layer][a] / SAMPLES for r, a in zip(trained, at, strict=True)])
        assert found["share"][layer][found["places"].index(0)] == pytest.approx(mean, abs=1e-6)
    assert found["questions"][found["places"].index(0)] == 4
    assert min(found["questions"]) >= 2
    by_layer = [np.mean([any(r["hits"][layer]) for r in trained]) for layer in range(3)]
    assert list(results["by_layer"].values()) == pytest.approx(by_layer)


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    model, file, adapter_file, knows, finished, tmp_path, monkeypatch
):
    write = bridge_readers.write_labels
    left = [7]

    def stops(*arguments, **named):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return write(*arguments, **named)

    monkeypatch.setattr(bridge_readers, "write_labels", stops)
    folder, first = tmp_path / "r", Knows(knows)
    for batch_size in (256, 7, 3):
        with pytest.raises(KeyboardInterrupt):
            Bridge.run(
                settings_for(file, adapter_file, batch_size=batch_size), folder, model, chat=first
            )
        with (folder / "rows.jsonl").open("a") as torn:
            torn.write('{"key": "trained/q/9", "hi')
        left[0] = 3
    left[0] = 100
    again = Knows(knows)
    path = Bridge.run(settings_for(file, adapter_file), folder, model, chat=again)
    assert again.asked == 0  # answers were kept
    assert path.read_bytes() == (finished[0] / "results.json").read_bytes()
    assert left[0] == 100 - (4 * 4 - 7 - 3 - 3)  # trained, random, two untrained; four questions


def test_other_weights_of_the_model_that_answers_are_noticed(
    model, file, adapter_file, knows, tmp_path
):
    settings = settings_for(file, adapter_file, untrained_scales=(), random=False)
    first, other = Knows(knows), Knows(knows)
    first.weights, other.weights = "a", "b"
    Bridge.run(settings, tmp_path / "r", model, chat=first)
    with pytest.raises(ConfigError, match="different chat weights"):
        Bridge.run(settings, tmp_path / "r", model, chat=other)
    assert other.asked == 0


def test_only_what_the_model_answers_is_read(model, file, adapter_file, questions, knows, tmp_path):
    chat = Knows(knows, (questions[0].bridge_prompt, questions[1].prompt))
    settings = settings_for(file, adapter_file, untrained_scales=(), random=False)
    results = json.loads(Bridge.run(settings, tmp_path / "r", model, chat=chat).read_text())
    assert results["counts"] == {
        "questions": 4,
        "asked": 4,
        "bridge answered": 3,
        "question answered": 3,
        "both answered": 2,
        "left out: every alias stands in the question": 0,
        "read": 2,
        "distinct bridges": 2,
        "read that name the bridge by another alias": 0,
    }
    nobody = Knows(knows, tuple(knows))
    with pytest.raises(DataError, match="none can be used"):
        Bridge.run(settings, tmp_path / "none", model, chat=nobody)
    free = settings_for(
        file, adapter_file, only_answered=False, limit=3, untrained_scales=(), random=False
    )
    assert json.loads(Bridge.run(free, tmp_path / "f", model).read_text())["counts"]["read"] == 3


def test_a_mean_is_subtracted_and_names_the_layers(model, file, adapter_file, questions, tmp_path):
    states = question_states(model, plan_question(model, questions[0], "1", "template"), NoMeans())
    mean = torch.full((model.d_model,), 2.5)
    save_file({"layer_1": mean}, tmp_path / "mean.safetensors")
    means = read_means(tmp_path / "mean.safetensors", [1], model.d_model)
    of_file = MeansOfFile(means)
    less = question_states(model, plan_question(model, questions[0], "1", "template"), of_file)
    torch.testing.assert_close(less, states - 2.5)
    settings = settings_for(
        file,
        adapter_file,
        mean=str(tmp_path / "mean.safetensors"),
        only_answered=False,
        limit=1,
        samples=1,
        max_new_tokens=1,
        untrained_scales=(),
        random=False,
    )
    results = json.loads(Bridge.run(settings, tmp_path / "r", model).read_text())
    assert results["heat_map"]["layers"] == [1]
    assert "mean_sha256" in results["inputs"]


def test_another_evaluation_in_the_folder_is_refused(file, adapter_file, model, finished):
    with pytest.raises(ConfigError, match="samples 2; now it is 4"):
        Bridge.run(settings_for(file, adapter_file, samples=4), finished[0], model)


def test_others_share_no_alias():
    def question(uid, *aliases):
        return TwoHopQuestion(
            uid, "", "", Entity(aliases[0], aliases), Entity("", ()), "", f"what of {uid} is"
        )

    same = [question("a", "US", "USA"), question("b", "usa", "us"), question("c", "US")]
    peru = question("d", "Peru", "c")
    found = Targets([*same, peru])
    assert found._others(BRIDGE, same[0]) == (("Peru", "c"),)
    # "c" stands in the question
    assert found._others(BRIDGE, same[2]) == (("Peru",),)
    assert found._others(BRIDGE, peru) == (("US", "USA"), ("usa", "us"), ("US",))


def test_specialists_label_their_own_places(model, file, adapter_file, tmp_path):
    """An adapter whose last token of layer 1 is another map: only those cells change."""
    general = load_adapter(adapter_file)
    special = create_adapter("scale_only", model.d_model, init_scale=9.0)
    for folder in ("alone", "set"):
        general.save(tmp_path / folder / "a.safetensors")
    special.save(tmp_path / "set" / "a.layer_1_at_-1.safetensors")
    only = {"only_answered": False, "limit": 1, "untrained_scales": (), "random": False}
    texts = []
    for folder in ("alone", "set"):
        settings = settings_for(
            file, str(tmp_path / folder / "a.safetensors"), keep_labels=True, **only
        )
        Bridge.run(settings, tmp_path / f"of_{folder}", model)
        rows = (tmp_path / f"of_{folder}" / "rows.jsonl").read_text().splitlines()
        texts.append(next(json.loads(r)["texts"] for r in rows if '"trained/' in r))
    changed = [
        (layer, column)
        for layer, (a, b) in enumerate(zip(*texts, strict=True))
        for column, (one, other) in enumerate(zip(a, b, strict=True))
        if one != other
    ]
    assert changed == [(1, len(texts[0][1]) - 1)]


def test_a_folder_of_an_earlier_version_is_refused(
    model, file, adapter_file, knows, finished, tmp_path
):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_bytes((finished[0] / "config.json").read_bytes())
    rows = [json.loads(r) for r in (finished[0] / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        del row["targets"]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = settings_for(file, adapter_file, only_answered=True)
    with pytest.raises(ConfigError, match="from an earlier version"):
        Bridge.run(settings, folder, model, chat=Knows(knows))


def test_the_question_is_read_as_the_adapters_vectors_were_captured(
    model, file, adapter_file, questions, tmp_path
):
    adapter = load_adapter(adapter_file)
    prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    adapter.binding = bind(model, prompt, 1).model_copy(update={"chat": "none"})
    bound = str(adapter.save(tmp_path / "bound.safetensors"))
    only = {"only_answered": False, "limit": 1, "untrained_scales": (), "random": False}

    def tokens_read(name, adapter, **changes):
        settings = settings_for(file, adapter, layers="1", **only, **changes)
        Bridge.run(settings, tmp_path / name, model)
        (row,) = (tmp_path / name / "rows.jsonl").read_text().splitlines()[:1]
        recorded = json.loads((tmp_path / name / "config.json").read_text())["settings"]["chat"]
        return recorded, json.loads(row)["labels"]

    assert tokens_read("a", bound) == tokens_read("b", bound, chat="none")
    assert tokens_read("a", bound)[0] == "none"
    with pytest.raises(ConfigError, match="with chat 'none'; now it is 'template'"):
        tokens_read("a", bound, chat="template")
    # an adapter that states nothing, and a folder of the time when this was the default
    before = tokens_read("c", adapter_file, chat="template")
    assert before[0] == "template"
    assert tokens_read("c", adapter_file) == before
    save_file({"layer_1": torch.ones(48)}, tmp_path / "m.safetensors", {"chat": "none"})
    assert tokens_read("d", adapter_file, mean=str(tmp_path / "m.safetensors"))[0] == "none"
