"""Read a prompt: the label of every state, layer by layer and token by token."""

from selfie_adapters.reading.read import Cell, Reading, read_prompt

__all__ = ["Cell", "Reading", "read_prompt"]
