"""Which chat model writes: a section of configuration files."""

from __future__ import annotations

from pydantic import Field, model_validator

from selfie_adapters.config.reading import Section


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
