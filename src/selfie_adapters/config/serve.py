"""What `selfie serve` takes."""

from __future__ import annotations

from typing import Annotated

from selfie_adapters.config.shared import (
    BindingSettings,
    DisplaySettings,
    LoraSettings,
    ModelSettings,
)
from selfie_adapters.config.types import InFile, Option


class ServeSettings(ModelSettings, LoraSettings, BindingSettings, DisplaySettings):
    model: InFile = "demo"
    adapter: Annotated[tuple[InFile, ...], Option(default="demo, for the model demo")] = ()
    """Adapter file; give it twice to compare two."""
    mean: Annotated[
        InFile | None, Option(default="the file in the first adapter's folder, if any")
    ] = None
    """File of mean vectors (layer_12, or layer_12_at_-1 and layer_12_at_name), subtracted from a
    prompt's states."""
    host: str = "127.0.0.1"
    """Address to listen on; from any but this machine's own, a token is asked for."""
    port: int = 8321
    """Port; 0 takes a free one."""
    token: Annotated[
        str | None, Option(default="$SELFIE_TOKEN, else none on 127.0.0.1, elsewhere a new one")
    ] = None
    """What a client must know. Other users of this machine can see an option, but not a variable
    or a file."""
    token_file: str | None = None
    """File with the token, instead of the token itself."""
