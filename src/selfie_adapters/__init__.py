"""Ask a language model what its own vectors mean.

The public names load on first use, so `import selfie_adapters` is quick and imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfie_adapters.adapters import Adapter, create_adapter, load_adapter
    from selfie_adapters.dataset import VectorLabelDataset, load_dataset
    from selfie_adapters.labelling import Label, Labeller
    from selfie_adapters.model import FrozenModel, SoftPrompt, load_model
    from selfie_adapters.training import label_losses, train

    __version__: str

_HOMES = {
    "Adapter": "adapters",
    "create_adapter": "adapters",
    "load_adapter": "adapters",
    "VectorLabelDataset": "dataset",
    "load_dataset": "dataset",
    "Label": "labelling",
    "Labeller": "labelling",
    "FrozenModel": "model",
    "SoftPrompt": "model",
    "load_model": "model",
    "label_losses": "training",
    "train": "training",
}

__all__ = [
    "Adapter",
    "FrozenModel",
    "Label",
    "Labeller",
    "SoftPrompt",
    "VectorLabelDataset",
    "__version__",
    "create_adapter",
    "label_losses",
    "load_adapter",
    "load_dataset",
    "load_model",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from selfie_adapters.installed import own_version

        return own_version()
    if home := _HOMES.get(name):
        return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
