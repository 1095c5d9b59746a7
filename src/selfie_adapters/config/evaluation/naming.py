"""Everything that decides the results of the naming protocol."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError

from selfie_adapters.config.reading import Section
from selfie_adapters.config.types import Count, Seed, Split
from selfie_adapters.errors import ConfigError


class NamingSettings(Section):
    source: str
    """Training file with held-out vectors."""
    model: str
    """Hub id, folder, .gguf file, or demo."""
    adapter: str
    """Adapter file, hub path, or the name of a shipped one."""
    split: Split = "test"
    layers: str | None = None
    """Blocks that are measured, such as 8,12 or 8:21; null: all."""
    limit: Count | None = None
    """Topics that are measured, drawn at random, the same in every section; null: all."""
    retrieval: Annotated[int, Field(ge=0)] = 60
    """Vectors of each section that look for their names among 60."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    device: str | None = None
    seed: Seed = 0

    @classmethod
    def checked(cls, **values: object) -> NamingSettings:
        """Settings from values. Raises ConfigError naming the option, what was found, and why."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            option = str(problem["loc"][0]) if problem["loc"] else "settings"
            raise ConfigError(f"{option}: {problem['msg']}, found {problem['input']!r}.") from None
