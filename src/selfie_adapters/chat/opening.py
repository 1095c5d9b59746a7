"""From chat settings to the chat model they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from selfie_adapters.chat.cache import AnswerCache
from selfie_adapters.chat.request import ChatModel
from selfie_adapters.config.chat import ChatSettings
from selfie_adapters.errors import ConfigError

if TYPE_CHECKING:
    from selfie_adapters.model import FrozenModel


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
