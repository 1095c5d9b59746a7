"""Chat models whose answers stay on disk: what was asked once is not asked again, not even after a
kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfie_adapters.chat.request import ChatModel, ChatRequest
from selfie_adapters.config.shared import ChatSettings
from selfie_adapters.errors import ConfigError, DataError
from selfie_adapters.files.keyed_rows import KeyedRows
from selfie_adapters.files.resumable_folder import ResumableFolder

if TYPE_CHECKING:
    from selfie_adapters.model import FrozenModel


class AnswerCache:
    """A chat model that asks `chat` only what `folder` does not hold the answer to.

    answers.jsonl in the folder has one row per answer: `digest` of the request, the model's name
    and, in this process, its weights; `answer`. Each is written as it comes. A request that occurs
    twice is asked once.
    """

    def __init__(self, chat: ChatModel, folder: str | Path) -> None:
        """Raises ConfigError for a folder that is a file, DataError for other content."""
        self.name, self.weights = chat.name, chat.weights
        self._chat = chat
        kept = ResumableFolder(folder, "answers").path
        self._answers = KeyedRows(kept / "answers.jsonl", _parsed, _row)

    def _digest(self, request: ChatRequest) -> str:
        return request.digest(self.name, self.weights)

    def missing(self, requests: Sequence[ChatRequest]) -> list[ChatRequest]:
        """Those requests, each once, that the model would be asked."""
        by_digest = {self._digest(request): request for request in requests}
        return [request for digest, request in by_digest.items() if digest not in self._answers]

    def answer(
        self,
        requests: Sequence[ChatRequest],
        done: Callable[[int, str], None] = lambda _number, _text: None,
    ) -> list[str]:
        """As the model's own; known answers are handed to `done` first."""
        digests = [self._digest(request) for request in requests]
        numbers: dict[str, list[int]] = {}
        for number, digest in enumerate(digests):
            numbers.setdefault(digest, []).append(number)
        missing = [digest for digest in numbers if digest not in self._answers]
        for number, digest in enumerate(digests):
            if digest in self._answers:
                done(number, self._answers[digest])

        def keep(index: int, text: str) -> None:
            digest = missing[index]
            self._answers.add({digest: text})
            for number in numbers[digest]:
                done(number, text)

        if missing:
            self._chat.answer([requests[numbers[digest][0]] for digest in missing], keep)
        return [self._answers[digest] for digest in digests]


def _parsed(row: dict[str, Any], where: str) -> tuple[str, str]:
    match row:
        case {"digest": str(digest), "answer": str(answer)}:
            return digest, answer
        case _:
            raise DataError(
                f"{where}: digest and answer are expected, found {row!r:.80}. Remove the file, or "
                "name another folder."
            )


def _row(digest: str, answer: str) -> dict[str, str]:
    return {"digest": digest, "answer": answer}


def open_chat(
    settings: ChatSettings,
    folder: str | Path,
    model: FrozenModel | None = None,
    device: str | None = None,
) -> AnswerCache:
    """The chat model that `settings` name; its answers are kept in `folder`.

    model: answers where the settings name none, such as the model under evaluation. device: where
    another model in this process goes.

    Raises ConfigError for an address that is none, or where no model is named and none is given;
    ModelError for a model that cannot be loaded; DataError for damaged files in `folder`.
    """
    return AnswerCache(_named(settings, folder, model, device), folder)


def _named(
    settings: ChatSettings, folder: str | Path, model: FrozenModel | None, device: str | None
) -> ChatModel:
    if settings.url is not None and settings.model is not None:
        if settings.protocol == "anthropic_batches":
            from selfie_adapters.chat.anthropic import AnthropicBatches

            return AnthropicBatches(settings.url, settings.model, settings.api_key_env, folder)
        from selfie_adapters.chat.openai import OpenAIChat

        return OpenAIChat(settings.url, settings.model, settings.api_key_env, settings.concurrency)
    from selfie_adapters.chat.in_process import InProcessChat

    if settings.model is not None:
        from selfie_adapters.model import load_model

        model = load_model(settings.model, device_map=device)
    if model is None:
        raise ConfigError("no chat model is named: give its model, and its url for a server.")
    return InProcessChat(model, settings.batch_size)
