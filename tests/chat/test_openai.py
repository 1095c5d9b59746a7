import threading
import time

import pytest

from chat_server import Reply, chat_server, refuses, says
from selfie_adapters.chat import ChatRequest, Message
from selfie_adapters.chat.openai import OpenAIChat
from selfie_adapters.errors import ConfigError, DownloadError


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("selfie_adapters.http.FIRST_WAIT", 0.001)


def question(text: str = "Who?", **changes) -> ChatRequest:
    return ChatRequest((Message("system", "Be brief."), Message("user", text)), 16, **changes)


def in_turn(*replies):
    """Each reply once, the last one for ever."""
    left = list(replies)
    return lambda _asked: left.pop(0) if len(left) > 1 else left[0]


def echo(asked):
    return says(asked.body["messages"][-1]["content"].upper())


def test_a_request_says_what_was_asked_and_with_which_key(monkeypatch):
    monkeypatch.setenv("SOME_KEY", " s3cret\n")
    with chat_server(echo) as server:
        chat = OpenAIChat(server.address + "/", "writer-1", "SOME_KEY")
        assert chat.answer([question("hi", temperature=0.7, top_p=0.9, seed=5)]) == ["HI"]
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/chat/completions")
    assert asked.headers["Authorization"] == "Bearer s3cret"
    assert asked.body == {
        "model": "writer-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi"},
        ],
        "max_tokens": 16,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 5,
    }


def test_an_answer_that_is_begun_is_gone_on_with():
    with chat_server(in_turn(says(" is Paris."), says("The capital is Paris."))) as server:
        chat = OpenAIChat(server.address, "m")
        for _server_repeats_it in (False, True):
            assert chat.answer([question(begun="The capital")]) == [" is Paris."]
    body = server.asked[0].body
    assert body["messages"][-1] == {"role": "assistant", "content": "The capital"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_hundreds_of_requests_come_back_in_order_and_only_so_many_are_open():
    def slow(asked):
        reply = echo(asked)
        reply.stall = 0.002
        return reply

    seen = {}
    with chat_server(slow) as server:
        chat = OpenAIChat(server.address, "m", concurrency=8)
        texts = chat.answer([question(f"q{i}") for i in range(400)], seen.__setitem__)
    assert texts == [f"Q{i}" for i in range(400)]
    assert seen == dict(enumerate(texts))
    assert len(server.asked) == 400
    assert 2 <= server.most_open <= 8


@pytest.mark.parametrize(
    "failure",
    [
        refuses(500),
        refuses(503),
        refuses(429),
        refuses(408),
        Reply(b"<html>gateway</html>"),
        Reply(b'{"choices": []}'),
        Reply(b"[1]"),
        Reply(b"null"),
        says(5),
        Reply(b'{"choices": [{"mess'),
        Reply(b"[" * 100_000),
        Reply(says("x").body, cut=True),
    ],
    ids=lambda reply: f"{reply.status} {reply.body[:20]!r}{' cut' if reply.cut else ''}",
)
def test_what_may_go_well_the_next_time_is_asked_again(failure):
    with chat_server(in_turn(failure, failure, says("at last"))) as server:
        assert OpenAIChat(server.address, "m").answer([question()]) == ["at last"]
    assert len(server.asked) == 3


def test_a_wait_that_the_server_asks_for_is_kept(monkeypatch):
    slept = []
    # `time` is one module for all: the server's own sleeps of 0 s come along
    monkeypatch.setattr("selfie_adapters.http.time.sleep", slept.append)

    def waited(*asked: str) -> list[float]:
        slept.clear()
        replies = [refuses(429, Retry_After=wait) for wait in asked]
        with chat_server(in_turn(*replies, says("now"))) as server:
            assert OpenAIChat(server.address, "m").answer([question()]) == ["now"]
        return [wait for wait in slept if wait]

    assert waited("7", "0.5", "9999") == [7.0, 0.5, 120.0]  # hours are not waited
    own = waited("Thu, 01 Jan 1970 00:00:00 GMT", "soon", "nan", "-5")
    assert len(own) == 4
    assert max(own) < 0.1


def test_a_server_that_does_not_recover_is_named():
    with chat_server(lambda _asked: refuses(503, "warming up")) as server:
        with pytest.raises(DownloadError, match=r"/v1/chat/completions: status 503, warming up"):
            OpenAIChat(server.address, "m").answer([question()])
        assert len(server.asked) == 6
    with pytest.raises(DownloadError, match="no complete answer"):  # nobody listens there any more
        OpenAIChat(server.address, "m").answer([question()])


def test_a_server_that_stalls_is_given_up(monkeypatch):
    monkeypatch.setattr("selfie_adapters.http.ATTEMPTS", 2)
    with chat_server(lambda _asked: says("late", stall=1.0)) as server:
        chat = OpenAIChat(server.address, "m", timeout=0.05)
        with pytest.raises(DownloadError, match=r"timed out.*2 attempts"):
            chat.answer([question()])


@pytest.mark.parametrize(
    ("status", "key", "words"),
    [
        (401, "SOME_KEY", "The key in SOME_KEY is not accepted"),
        (403, None, "name the variable that holds it"),
        (404, None, "ending in /v1"),
        (400, None, "max_tokens is too large"),
        (302, None, "redirects to"),
    ],
)
def test_a_refusal_is_not_asked_again_and_says_what_to_do(monkeypatch, status, key, words):
    monkeypatch.setenv("SOME_KEY", "abc")
    with chat_server(lambda _asked: refuses(status, "max_tokens is too large")) as server:
        with pytest.raises(DownloadError, match=words) as caught:
            OpenAIChat(server.address, "m", key).answer([question()])
        assert len(server.asked) == 1
    assert "abc" not in str(caught.value)


def test_after_a_refusal_nothing_new_is_asked_and_what_came_is_handed_over():
    first_done = threading.Event()

    def reply(asked):
        text = asked.body["messages"][-1]["content"]
        if text == "good":
            return says("yes")
        first_done.wait(5)
        return refuses(400)

    seen = {}

    def done(number, text):
        seen[number] = text
        first_done.set()

    with chat_server(reply) as server:
        chat = OpenAIChat(server.address, "m", concurrency=2)
        wanted = [question("good"), *[question(f"bad{i}") for i in range(100)]]
        with pytest.raises(DownloadError):
            chat.answer(wanted, done)
        assert len(server.asked) < 20
    assert seen == {0: "yes"}


def test_a_failure_of_the_callers_own_stops_at_once():
    def stop(_number, _text):
        raise KeyboardInterrupt

    begun = time.monotonic()
    with chat_server(lambda _asked: says("x", stall=0.05)) as server:
        with pytest.raises(KeyboardInterrupt):
            OpenAIChat(server.address, "m", concurrency=2).answer([question()] * 200, stop)
        assert len(server.asked) < 20
    assert time.monotonic() - begun < 3


def test_hostile_answers_become_plain_text():
    replies = (says(None), Reply(rb'{"choices": [{"message": {"content": "a\ud800b"}}]}'))
    with chat_server(in_turn(*replies)) as server:
        chat = OpenAIChat(server.address, "m")
        assert chat.answer([question()]) == [""]
        assert chat.answer([question()]) == ["a?b"]


@pytest.mark.parametrize("address", ["", "localhost:8000", "ftp://x/v1", "http://", "http://[::1"])
def test_an_address_that_is_none(address):
    with pytest.raises(ConfigError, match="not the address of a server"):
        OpenAIChat(address, "m")


def test_a_key_that_is_missing_or_no_key(monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_KEY is not set"):
        OpenAIChat("http://x/v1", "m", "NO_KEY")
    monkeypatch.setenv("NO_KEY", "schlüssel")
    with pytest.raises(ConfigError, match="a key cannot contain") as caught:
        OpenAIChat("http://x/v1", "m", "NO_KEY")
    assert "schlüssel" not in str(caught.value)
