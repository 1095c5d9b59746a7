from selfie_adapters.evaluation.scoring.conversations import (
    Writing,
    requests_for,
    write_conversations,
)


class Echo:
    """A writer that answers with the theme and the request's number."""

    name = "echo"
    weights: str | None = None

    def __init__(self, silent=()):
        self.asked = []
        self.silent = silent

    def answer(self, requests, done=lambda _number, _text: None):
        self.asked += requests
        themes = [r.messages[0].content.rsplit("Theme: ", 1)[1] for r in requests]
        return ["" if t in self.silent else f" {t} {i}" for i, t in enumerate(themes)]


def test_the_published_protocol_is_the_default():
    (request,) = requests_for(["owls"], Writing(conversations=1), seed=0)
    assert (request.max_tokens, request.temperature, request.top_p) == (100, 0.7, 0.9)
    assert request.begun == "[USER]"
    assert len(requests_for(["owls"], Writing(), 0)) == 10


def test_a_label_twice_gets_new_conversations_and_equal_labels_elsewhere_the_same():
    how = Writing(conversations=3)
    here = requests_for(["owls", "tea", "owls"], how, seed=1)
    assert len({request.seed for request in here}) == 9
    assert requests_for(["tea", "owls"], how, seed=1)[3:] == here[:3]
    assert requests_for(["owls"], how, seed=2) != here[:3]


def test_conversations_stand_under_their_latent_and_label():
    writer = Echo(silent=("mute",))
    written = write_conversations(writer, [["a", ""], ["mute", "b"]], Writing(2), seed=0)
    assert written == [
        [["[USER] a 0", "[USER] a 1"], []],
        [["", ""], ["[USER] b 4", "[USER] b 5"]],
    ]
    assert len(writer.asked) == 6
