"""Types that several settings share: numbers with their bounds, and choices."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
NotNegativeCount = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy's generators take

Split = Literal["train", "val", "test"]
"""What a row is for: training, choosing (validation, early stopping, calibration), reporting."""
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Chat = Literal["template", "bare", "none"]
"""A text as a turn of the tokenizer's chat template, a turn without system prompt, or as it is."""
