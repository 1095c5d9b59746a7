"""Does a text name an entity? Its aliases, as whole words, however they are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache


def names_entity(text: str, aliases: Iterable[str]) -> bool:
    """Whether one of `aliases` occurs in `text` as whole words.

    Letter case does not count, nor the number of spaces between words, nor spaces around full stops
    ("J.D. Salinger" is "J. D. Salinger"). An alias may begin or end with a symbol: "C++" occurs in
    "C++ code". Aliases without a letter, digit or symbol name nothing.
    """
    pattern = _pattern(tuple(aliases))
    return pattern is not None and pattern.search(_normalized(text)) is not None


def unnamed(text: str, aliases: Iterable[str]) -> tuple[str, ...]:
    """The aliases that do not occur in `text`; a label with another one may be an echo of it."""
    return tuple(alias for alias in aliases if not names_entity(text, [alias]))


@lru_cache(maxsize=4096)
def _pattern(aliases: tuple[str, ...]) -> re.Pattern[str] | None:
    wanted = {" ".join(_normalized(alias).split()) for alias in aliases}
    choices = [_alias(alias) for alias in sorted(wanted) if alias.strip(". ")]
    # Word boundaries (\b) fail next to a symbol; no letter may follow or precede.
    return re.compile(rf"(?<!\w)(?:{'|'.join(choices)})(?!\w)") if choices else None


def _alias(alias: str) -> str:
    """An alias as a pattern: spaces and full stops may vary, everything else is literal."""
    parts = re.split(r"\s*\.\s*", alias)
    pattern = r"\s*\.\s*".join(r"\s+".join(map(re.escape, part.split())) for part in parts)
    # At the ends a full stop takes no spaces: they would consume the next word's boundary.
    return pattern.removeprefix(r"\s*").removesuffix(r"\s*")


def _normalized(text: str) -> str:
    """One form of a letter, however its accent and case are encoded."""
    return unicodedata.normalize("NFC", text).casefold()
