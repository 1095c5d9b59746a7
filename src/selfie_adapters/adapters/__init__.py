"""Adapters: tiny maps R^d → R^d from a vector to a soft token, and their files."""

from selfie_adapters.imports import without_collection

with without_collection():
    from selfie_adapters.adapters.base import KINDS, Adapter, TrainingRecord
    from selfie_adapters.adapters.binding import Binding
    from selfie_adapters.adapters.checkpoint import find_adapter_file, load_adapter
    from selfie_adapters.adapters.kinds import create_adapter

__all__ = [
    "KINDS",
    "Adapter",
    "Binding",
    "TrainingRecord",
    "create_adapter",
    "find_adapter_file",
    "load_adapter",
]
