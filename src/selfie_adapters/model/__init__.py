"""The frozen language model: loading, soft prompts, injection, shared prefix, capture."""

from selfie_adapters.imports import without_collection

with without_collection():
    from selfie_adapters.model.scan_once import import_models

    import_models()  # before any name of transformers is used
    from selfie_adapters.model.capture import capture
    from selfie_adapters.model.fine_tune import with_lora
    from selfie_adapters.model.fingerprint import bind
    from selfie_adapters.model.injection import injected
    from selfie_adapters.model.loading import FrozenModel, load_model
    from selfie_adapters.model.prefix import SharedPrefix
    from selfie_adapters.model.prompt import BoundPrompt, SoftPrompt

__all__ = [
    "BoundPrompt",
    "FrozenModel",
    "SharedPrefix",
    "SoftPrompt",
    "bind",
    "capture",
    "injected",
    "load_model",
    "with_lora",
]
