"""How labels are generated: in this process, in vLLM, or by a pool of processes (`ray`).

An engine is a module of this package that is named like the engine. It defines LOADS_MODEL, whether
the engine loads the weights itself (the model it is given then holds only the embedding table), and
`make_engine(model, prompt, settings)`, which returns a `base.Engine`.
"""

from importlib import import_module

from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.labelling.engines.base import Engine
from selfie_adapters.model import BoundPrompt, FrozenModel


def loads_model(name: str) -> bool:
    """Whether the engine `name` loads the weights of the model itself."""
    return import_module(f"{__name__}.{name}").LOADS_MODEL


def make_engine(model: FrozenModel, prompt: BoundPrompt, settings: LabelSettings) -> Engine:
    """The engine that `settings` name. Raises what making it raises."""
    return import_module(f"{__name__}.{settings.engine}").make_engine(model, prompt, settings)
