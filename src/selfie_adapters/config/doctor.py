"""What `selfie doctor` takes."""

from __future__ import annotations

from typing import Annotated

from selfie_adapters.config.shared import ModelSettings
from selfie_adapters.config.types import InFile, Option


class DoctorSettings(ModelSettings):
    model: Annotated[InFile, Option(default="demo, if it is installed")] = "demo"
    sae: InFile | None = None
    """SAE of the model, whose activations are checked as well: release:id, a SAELens folder, or
    demo."""
