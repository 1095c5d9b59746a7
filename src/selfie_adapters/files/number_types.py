"""Numbers that rows in files may hold, as types that msgspec checks."""

from __future__ import annotations

from typing import Annotated

import msgspec

NaturalNumber = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""A count or an index. A tensor of 64-bit integers holds it and its neighbors."""
Proportion = Annotated[float, msgspec.Meta(ge=0, le=1)]
