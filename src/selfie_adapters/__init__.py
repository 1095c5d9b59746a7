"""Ask a language model what its own vectors mean.

The public names load on first use, so `import selfie_adapters` is quick and imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfie_adapters.adapters import Adapter, create_adapter, load_adapter
    from selfie_adapters.config import TrainConfig
    from selfie_adapters.config.shared import Sampling
    from selfie_adapters.dataset import (
        Item,
        Section,
        VectorLabelDataset,
        load_dataset,
        save_dataset,
    )
    from selfie_adapters.errors import SelfieError
    from selfie_adapters.labelling import Label, Labeller
    from selfie_adapters.model import FrozenModel, SoftPrompt, capture, load_model
    from selfie_adapters.reading import Reading, read_prompt
    from selfie_adapters.training import label_losses, train

    __version__: str

_MODULES = {
    "adapters": ("Adapter", "create_adapter", "load_adapter"),
    "config": ("TrainConfig",),
    "dataset": ("Item", "Section", "VectorLabelDataset", "load_dataset", "save_dataset"),
    "errors": ("SelfieError",),
    "config.shared": ("Sampling",),
    "labelling": ("Label", "Labeller"),
    "reading": ("Reading", "read_prompt"),
    "model": ("FrozenModel", "SoftPrompt", "capture", "load_model"),
    "training": ("label_losses", "train"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Adapter",
    "FrozenModel",
    "Item",
    "Label",
    "Labeller",
    "Reading",
    "Sampling",
    "Section",
    "SelfieError",
    "SoftPrompt",
    "TrainConfig",
    "VectorLabelDataset",
    "__version__",
    "capture",
    "create_adapter",
    "label_losses",
    "load_adapter",
    "load_dataset",
    "load_model",
    "read_prompt",
    "save_dataset",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from selfie_adapters.extras import own_version

        return own_version()
    if module := _MODULE_OF.get(name):
        return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
