import json

import pytest

from selfie_adapters.chat import AnswerCache, ChatRequest, Message
from selfie_adapters.errors import ConfigError, DataError


class Fake:
    """Answers with the question in capitals; dies after `alive` answers."""

    name = "fake"
    weights: str | None = None

    def __init__(self, alive: int = 1000) -> None:
        self.alive = alive
        self.asked: list[str] = []

    def answer(self, requests, done=lambda _number, _text: None):
        texts = []
        for number, request in enumerate(requests):
            if len(self.asked) == self.alive:
                raise KeyboardInterrupt
            question = request.messages[-1].content
            self.asked.append(question)
            texts.append(question.upper())
            done(number, texts[-1])
        return texts


def questions(*texts: str) -> list[ChatRequest]:
    return [ChatRequest((Message("user", text),), 8) for text in texts]


def test_a_run_that_was_killed_asks_only_what_is_missing(tmp_path):
    wanted = questions(*"abcdef")
    with pytest.raises(KeyboardInterrupt):
        AnswerCache(Fake(alive=3), tmp_path).answer(wanted)
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"digest": "12", "ans')  # killed in the middle of the fourth
    again = Fake()
    cache = AnswerCache(again, tmp_path)
    assert [r.messages[-1].content for r in cache.missing(wanted)] == ["d", "e", "f"]
    seen = []
    assert cache.answer(wanted, lambda *row: seen.append(row)) == list("ABCDEF")
    assert again.asked == ["d", "e", "f"]
    assert sorted(seen) == list(enumerate("ABCDEF"))
    third = Fake()
    assert AnswerCache(third, tmp_path).answer(wanted) == list("ABCDEF")
    assert third.asked == []


def test_a_question_asked_twice_is_one_question(tmp_path):
    fake, seen = Fake(), {}
    assert AnswerCache(fake, tmp_path).answer(questions("a", "b", "a"), seen.__setitem__) == [
        "A",
        "B",
        "A",
    ]
    assert fake.asked == ["a", "b"]
    assert seen == {0: "A", 1: "B", 2: "A"}


def test_other_settings_and_other_models_are_other_questions(tmp_path):
    base = questions("a")[0]
    others = [
        ChatRequest(base.messages, 9),
        ChatRequest(base.messages, 8, temperature=0.5),
        ChatRequest(base.messages, 8, top_p=0.5),
        ChatRequest(base.messages, 8, seed=1),
        ChatRequest(base.messages, 8, begun="A"),
        ChatRequest((Message("system", "x"), *base.messages), 8),
    ]
    assert len({r.digest("fake") for r in [base, *others]} | {base.digest("other")}) == 8
    cache = AnswerCache(Fake(), tmp_path)
    cache.answer([base])
    assert cache.missing([base, *others]) == others


def test_files_that_are_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        AnswerCache(Fake(), tmp_path / "file")
    for row in ({"digest": "a"}, {"digest": "a", "answer": 5}):
        (tmp_path / "answers.jsonl").write_text(json.dumps(row) + "\n")
        with pytest.raises(DataError, match="line 1: digest and answer are expected"):
            AnswerCache(Fake(), tmp_path)
