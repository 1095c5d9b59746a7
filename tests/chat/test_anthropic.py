import json
from types import SimpleNamespace

import pytest

from chat_server import Reply, chat_server, refuses
from selfie_adapters.chat import ChatRequest, Message
from selfie_adapters.chat import anthropic as module
from selfie_adapters.chat.anthropic import AnthropicBatches
from selfie_adapters.errors import ConfigError, DataError, DownloadError


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("selfie_adapters.http.FIRST_WAIT", 0.001)
    monkeypatch.setenv("SOME_KEY", "k")


def question(text: str, **changes) -> ChatRequest:
    return ChatRequest((Message("system", "Be brief."), Message("user", text)), 16, **changes)


class Batches:
    """The protocol: batches end after `polls` looks; answers are the question in capitals."""

    def __init__(self, polls: int = 2) -> None:
        self.polls = polls
        self.handed_in: list[list[dict]] = []
        self.looks: dict[str, int] = {}
        self.spoil = lambda _text: None  # question → result that is no success

    def __call__(self, asked):
        if asked.method == "POST":
            self.handed_in.append(asked.body["requests"])
            name = f"msgbatch_{len(self.handed_in)}"
            self.looks[name] = 0
            return _json({"id": name, "type": "message_batch", "processing_status": "in_progress"})
        name = asked.path.split("/")[4]
        if name not in self.looks:
            return refuses(404, "no such batch")
        if not asked.path.endswith("/results"):
            self.looks[name] += 1
            status = "ended" if self.looks[name] >= self.polls else "in_progress"
            return _json({"id": name, "processing_status": status})
        lines = []
        for row in reversed(self.handed_in[int(name.rpartition("_")[2]) - 1]):  # in any order
            text = row["params"]["messages"][-1]["content"]
            result = self.spoil(text) or {
                "type": "succeeded",
                "message": {"content": [{"type": "text", "text": text.upper()}]},
            }
            lines.append(json.dumps({"custom_id": row["custom_id"], "result": result}))
        return Reply("\n".join(lines).encode())


def _json(value) -> Reply:
    return Reply(json.dumps(value).encode())


def opened(server, folder) -> AnthropicBatches:
    return AnthropicBatches(server.address, "claude", "SOME_KEY", folder, poll_seconds=0.001)


def test_requests_are_handed_in_polled_for_and_fetched(tmp_path):
    protocol, seen = Batches(polls=3), {}
    wanted = [question("a", temperature=0.5), question("b", begun="So"), question("c", top_p=0.9)]
    wanted.append(wanted[0])
    with chat_server(protocol) as server:
        texts = opened(server, tmp_path).answer(wanted, seen.__setitem__)
    assert texts == ["A", "SO", "C", "A"]
    assert seen == dict(enumerate(texts))
    (rows,) = protocol.handed_in
    assert [row["custom_id"] for row in rows] == [r.digest("claude") for r in wanted[:3]]
    assert rows[0]["params"] == {
        "model": "claude",
        "max_tokens": 16,
        "temperature": 0.5,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "a"}],
    }
    assert rows[1]["params"]["messages"][-1] == {"role": "assistant", "content": "So"}
    assert rows[2]["params"]["top_p"] == 0.9
    assert protocol.looks == {"msgbatch_1": 3}
    post = server.asked[0]
    assert post.path == "/v1/messages/batches"
    headers = {name.lower(): value for name, value in post.headers.items()}
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("k", "2023-06-01")


def test_a_killed_run_fetches_what_was_handed_in(tmp_path, monkeypatch):
    protocol = Batches()
    monkeypatch.setattr(module, "_AT_ONCE", 2)

    def killed(_seconds):
        raise KeyboardInterrupt

    with chat_server(protocol) as server:
        with monkeypatch.context() as patch:
            patch.setattr(module, "time", SimpleNamespace(sleep=killed))
            with pytest.raises(KeyboardInterrupt):
                opened(server, tmp_path).answer([question(t) for t in "abc"])
        with (tmp_path / "batches.jsonl").open("a") as file:
            file.write('{"id": "msgb')
        assert len(protocol.handed_in) == 2
        texts = opened(server, tmp_path).answer([question(t) for t in "abcd"])
        assert texts == list("ABCD")
        assert [[r["params"]["messages"][0]["content"] for r in b] for b in protocol.handed_in] == [
            ["a", "b"],
            ["c"],
            ["d"],
        ]


def test_requests_that_failed_are_handed_in_by_the_next_run(tmp_path):
    protocol = Batches()
    protocol.spoil = lambda text: {"type": "expired"} if text == "b" else None
    seen = {}
    with chat_server(protocol) as server:
        with pytest.raises(DownloadError, match=r"1 of 3 requests have no answer \(expired"):
            opened(server, tmp_path).answer([question(t) for t in "abc"], seen.__setitem__)
        assert seen == {0: "A", 2: "C"}
        protocol.spoil = lambda _text: None
        assert opened(server, tmp_path).answer([question("b")]) == ["B"]
    assert len(protocol.handed_in) == 2


def test_a_request_that_is_invalid_has_no_text(tmp_path):
    protocol = Batches()
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
    protocol.spoil = lambda text: {"type": "errored", "error": error} if text == "b" else None
    with chat_server(protocol) as server:
        assert opened(server, tmp_path).answer([question("a"), question("b")]) == ["A", ""]


def test_a_batch_is_not_handed_in_twice_when_it_may_have_been_taken(tmp_path):
    with chat_server(lambda _asked: Reply(b'{"id": "msgbatch_1"}', cut=True)) as server:
        with pytest.raises(DownloadError, match="not known whether the server accepted"):
            opened(server, tmp_path).answer([question("a")])
        assert len(server.asked) == 1


def test_failures_for_a_moment_are_tried_again(tmp_path):
    protocol, failures = Batches(), [refuses(529, "overloaded"), refuses(429)]

    def reply(asked):
        if asked.method == "POST" and failures:
            return failures.pop()
        answer = protocol(asked)
        if asked.path.endswith("/results") and len(server.asked) < 8:
            answer.cut = True
        return answer

    with chat_server(reply) as server:
        assert opened(server, tmp_path).answer([question("a")]) == ["A"]
    assert len(protocol.handed_in) == 1


@pytest.mark.parametrize(
    "bodies",
    [
        {"POST": {"id": 5}},
        {"POST": {"id": "../../x"}},
        {"GET": {"processing_status": None}},
        {"GET": {"processing_status": "ended"}},  # and results that are none
    ],
)
def test_answers_that_make_no_sense(tmp_path, bodies):
    def reply(asked):
        return _json(bodies.get(asked.method, {"id": "msgbatch_1"}))

    with chat_server(reply) as server, pytest.raises(DownloadError, match="6 attempts"):
        opened(server, tmp_path).answer([question("a")])


def test_results_without_some_of_the_requests(tmp_path):
    protocol = Batches()

    def reply(asked):
        return Reply(b"\n") if asked.path.endswith("/results") else protocol(asked)

    lost = pytest.raises(DownloadError, match="1 of 1 requests have no answer")
    with chat_server(reply) as server, lost:
        opened(server, tmp_path).answer([question("a")])


def test_files_and_keys_that_are_none(tmp_path, monkeypatch):
    (tmp_path / "batches.jsonl").write_text('{"id": 5}\n')
    with pytest.raises(DataError, match="id and digests are expected"):
        AnthropicBatches("http://x/v1", "m", None, tmp_path)
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(ConfigError, match="SOME_KEY is not set"):
        AnthropicBatches("http://x/v1", "m", "SOME_KEY", tmp_path)
