"""What `selfie report` takes."""

from __future__ import annotations

from typing import Annotated

from selfie_adapters.config.reading import Section
from selfie_adapters.config.types import Option


class ReportSettings(Section):
    out: Annotated[str | None, Option(default="report.html in the first run's folder")] = None
    """HTML file to write; an existing one is replaced."""
