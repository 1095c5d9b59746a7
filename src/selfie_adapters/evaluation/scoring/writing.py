"""What a writer is asked: short conversations that a label describes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfie_adapters.chat import ChatModel, ChatRequest, Message
from selfie_adapters.inference.sampling import row_seed

BEGUN = "[USER]"
# The label comes last, so that a model in this process reads the rest once for all labels.
PROMPT = """\
Write a short conversation in which a user and an assistant speak about the theme below, with many \
words that belong to it. Mark each turn of the user with [USER] and each turn of the assistant \
with [ASSISTANT].

Theme: {label}"""


@dataclass(frozen=True)
class Writing:
    """How many conversations a label gets, how they are sampled (the published values), and what
    is asked.

    prompt: the user turn, in which every "_" is replaced by the label; None takes this project's
    own. system: a system turn before it.
    """

    conversations: int = 10
    max_tokens: int = 100
    temperature: float = 0.7
    top_p: float = 0.9
    prompt: str | None = None
    system: str | None = None

    @property
    def begun(self) -> str:
        """How the answer begins, where this project asks; a prompt of one's own begins nothing."""
        return BEGUN if self.prompt is None else ""

    def messages(self, label: str) -> tuple[Message, ...]:
        """The turns that ask for a conversation."""
        template = self.prompt
        content = PROMPT.format(label=label) if template is None else template.replace("_", label)
        asked = Message("user", content)
        return (Message("system", self.system), asked) if self.system else (asked,)


def requests_for(labels: Sequence[str], how: Writing, seed: int) -> list[ChatRequest]:
    """how.conversations requests for each of a latent's labels, label by label; none for "".

    A seed is made of the label's text and how often it was asked for before: equal labels of
    different latents are the same requests, a label twice in `labels` gets new conversations.
    """
    asked: dict[str, int] = {}
    requests: list[ChatRequest] = []
    for label in filter(None, labels):
        messages = how.messages(label)
        for _ in range(how.conversations):
            number = asked[label] = asked.get(label, -1) + 1
            requests.append(
                ChatRequest(
                    messages=messages,
                    max_tokens=how.max_tokens,
                    temperature=how.temperature,
                    top_p=how.top_p,
                    seed=row_seed(seed, label, number),
                    begun=how.begun,
                )
            )
    return requests


def write_conversations(
    writer: ChatModel, labels: Sequence[Sequence[str]], how: Writing, seed: int
) -> list[list[list[str]]]:
    """Conversations with their markers for each of each latent's labels, all asked for at once.

    None for an empty label; "" where the writer wrote nothing.
    """
    asked = [requests_for(of_latent, how, seed) for of_latent in labels]
    answers = iter(writer.answer([request for requests in asked for request in requests]))
    return [
        [_take(answers, how.conversations if label else 0, how.begun) for label in of]
        for of in labels
    ]


def _take(answers: Iterator[str], count: int, begun: str) -> list[str]:
    texts = [next(answers) for _ in range(count)]
    return [f"{begun}{text}" if text.strip() else "" for text in texts]
