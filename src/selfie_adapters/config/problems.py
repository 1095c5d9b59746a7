"""What pydantic finds wrong with a value, in words for the user who wrote it."""

from __future__ import annotations

import math
import reprlib
from typing import TYPE_CHECKING

from pydantic import ValidationError

from selfie_adapters.config.yaml_reading import shortened

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SHORT = reprlib.Repr()  # a wrong value may be as long as the file
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 120
_SECTION = ("model_type", "model_attributes_type", "dict_type", "dataclass_type")


def first_problem(error: ValidationError, whole: str) -> str:
    """Place and problem of the first error. whole: what the place is called where there is none."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"]) or whole
    return f"{shortened(place)}: {problem_text(problem)}"


def problem_text(problem: ErrorDetails) -> str:
    """What was expected and found, without the place."""
    if problem["type"] == "missing":
        return "missing. Add it."
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in _SECTION:  # pydantic's own text names a class of ours
        message = "a mapping, key: value, is expected"
    return f"{shortened(message, 400)}{_found(problem)}."


def _found(problem: ErrorDetails) -> str:
    """How a wrong value is quoted; a section's own rule names its keys, so nothing is added."""
    found = problem["input"]
    if isinstance(found, dict):
        return "" if problem["type"] == "value_error" else ", found a mapping"
    if isinstance(found, list) and len(found) > _SHORT.maxlist:
        return f", found a list of {len(found):,}"
    if isinstance(found, float) and not math.isfinite(found):
        return f", found {found}"
    return f", found {_SHORT.repr(found)}"
