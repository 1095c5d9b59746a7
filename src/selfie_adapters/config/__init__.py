"""Settings of every command, checked, with one default per value. Nothing here imports torch."""

from selfie_adapters.config.settings import Settings, read_config
from selfie_adapters.config.training import (
    ADAPTER_KINDS,
    DataSection,
    LoggingSection,
    ModelSection,
    ProjectionSection,
    Ratio,
    SoftPromptSection,
    TrainConfig,
    TrainingSection,
    dump_config,
    load_config,
)

__all__ = [
    "ADAPTER_KINDS",
    "DataSection",
    "LoggingSection",
    "ModelSection",
    "ProjectionSection",
    "Ratio",
    "Settings",
    "SoftPromptSection",
    "TrainConfig",
    "TrainingSection",
    "dump_config",
    "load_config",
    "read_config",
]
