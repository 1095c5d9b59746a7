"""Which chat model is asked: a section of configuration files."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from selfie_adapters.config.reading import Settings


class ChatSettings(Settings):
    """A model in this process, or one of a server."""

    model: str | None = None
    """The model's name at `url`; without url a hub id or folder. null: the evaluated model."""

    url: str | None = None
    """Address that the protocol's paths are appended to, such as http://localhost:8000/v1."""

    protocol: Literal["openai", "anthropic_batches"] = "openai"
    """openai: POST url/chat/completions. anthropic_batches: all requests are submitted to
    url/messages/batches at once, and the answers are fetched within a day, at half the price."""

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
        if self.protocol == "anthropic_batches" and self.url is None:
            raise ValueError("anthropic_batches needs url, such as https://api.anthropic.com/v1")
        return self
