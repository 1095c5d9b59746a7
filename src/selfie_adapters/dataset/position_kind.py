"""Kinds of position: the token of its text that a vector is taken from, as far as means and
calibrations distinguish it.

"-1", "-2", …: counted from the end of the text, the chat format's closing tokens included; "5",
say: from its start.
"name": the last token of a topic's own name inside a sentence.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

NAME = "name"


def kind_of_token(position: int, tokens: int, known: Collection[str | None]) -> str | None:
    """Which of the kinds `known` a token of a prompt belongs to.

    position: from 0, of `tokens`. A kind counted from the end, else from the start, where that one
    is known; else "name" (a token inside the text); else the one without a kind, or the only one
    there is.
    Raises KeyError if none of these is known.
    """
    for kind in (str(position - tokens), str(position), NAME, None):
        if kind in known:
            return kind
    if len(known) == 1:
        return next(iter(known))
    raise KeyError(position)


def stated_kind(metadata: dict[str, Any]) -> str | None:
    """The kind of position that a section of a training file states, if it states one."""
    position = metadata.get("position")
    known = type(position) is int or position == NAME
    return str(position) if known else None
