"""Which chat model writes: a section of configuration files, and the model it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from selfie_adapters.chat.request import ChatModel
from selfie_adapters.config_reading import Section
from selfie_adapters.errors import ConfigError

if TYPE_CHECKING:
    from selfie_adapters.model import FrozenModel


class ChatSettings(Section):
    """A model in this process, or one behind an OpenAI-compatible address."""

    model: str | None = None
    """The model's name at `url`; without url a hub id or folder. null: the evaluated model."""

    url: str | None = None
    """Address that ends before /chat/completions, such as http://localhost:8000/v1."""

    api_key_env: str | None = None
    """Environment variable with the server's key; null sends none."""

    concurrency: int = Field(default=8, ge=1, le=1024)
    """Requests open at a time, where there is a url."""

    batch_size: int = Field(default=64, ge=1)
    """Conversations written at a time, in this process."""

    @model_validator(mode="after")
    def _whole(self) -> ChatSettings:
        if self.url is not None and self.model is None:
            raise ValueError("url needs the model's name there (model)")
        if self.url is None and self.api_key_env is not None:
            raise ValueError("api_key_env needs a server (url)")
        return self


def open_chat(
    settings: ChatSettings, model: FrozenModel | None = None, device: str | None = None
) -> ChatModel:
    """The chat model that `settings` name; `model` is the one under evaluation;
    `device` is where another one in this process goes.

    Raises ConfigError for an address that is none, or where no model is named and none is given;
    ModelError for a model that cannot be loaded.
    """
    if settings.url is not None and settings.model is not None:
        from selfie_adapters.chat.openai import OpenAIChat

        return OpenAIChat(settings.url, settings.model, settings.api_key_env, settings.concurrency)
    from selfie_adapters.chat.in_process import InProcessChat

    if settings.model is not None:
        from selfie_adapters.model import load_model

        model = load_model(settings.model, device_map=device)
    if model is None:
        raise ConfigError("no chat model is named: give its model, and its url for a server.")
    return InProcessChat(model, settings.batch_size)
