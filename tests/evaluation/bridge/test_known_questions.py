from dataclasses import replace

from selfie_adapters.chat import ChatRequest
from selfie_adapters.evaluation.bridge.questions import Asked, ask
from selfie_adapters.sources.twohop import Entity, TwoHopQuestion


def question(uid: str) -> TwoHopQuestion:
    return TwoHopQuestion(
        uid,
        "",
        uid,
        Entity("France", ("France", "the Hexagon")),
        Entity("euro", ("euro",)),
        f"The country of {uid} is",
        f"The currency of the country of {uid} is",
    )


class Scripted:
    name = "scripted"
    weights: str | None = None

    def __init__(self, said: dict[str, str]) -> None:
        self.said = said
        self.asked: list[ChatRequest] = []

    def answer(self, requests, done=lambda _number, _text: None):
        self.asked += requests
        return [
            next(text for end, text in self.said.items() if r.messages[-1].content.endswith(end))
            for r in requests
        ]


def test_an_echo_of_the_sentence_is_no_answer():
    echo = "The currency of the country of the euro is the euro"
    asked = Asked(replace(question("x"), prompt="The currency of the euro country is"), echo, echo)
    assert not asked.knows_answer
    assert Asked(question("x"), "", echo).knows_answer


def test_both_must_be_said():
    chat = Scripted(
        {
            "The country of both is": "the hexagon, I think",
            "currency of the country of both is": "The euro.",
            "The country of bridge is": "France",
            "currency of the country of bridge is": "the franc",
            "The country of neither is": "Frances",
            "currency of the country of neither is": "",
        }
    )
    found = {
        a.question.uid: a for a in ask(chat, [question(u) for u in ("both", "bridge", "neither")])
    }
    assert {u: (a.knows_bridge, a.knows_answer) for u, a in found.items()} == {
        "both": (True, True),
        "bridge": (True, False),
        "neither": (False, False),
    }
    assert found["bridge"].final_answer == "the franc"
    assert len(chat.asked) == 6
    assert {r.begun for r in chat.asked} >= {
        question("both").prompt,
        question("both").bridge_prompt,
    }
    for request in chat.asked:
        assert request.temperature == 0
        assert [m.role for m in request.messages] == ["user", "assistant", "user"]
