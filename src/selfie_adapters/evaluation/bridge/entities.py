"""Does a text name an entity? Its aliases, as whole words, however they are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache


def names_entity(text: str, aliases: Iterable[str]) -> bool:
    """Whether `text` contains one of `aliases` as whole words.

    Letter case does not count, nor the amount of whitespace between words and around full stops
    ("J.D. Salinger" is "J. D. Salinger"). An alias may begin or end with a symbol: "C++" is in
    "C++ code". Aliases without a letter, digit or symbol name nothing.
    """
    pattern = _pattern(tuple(aliases))
    return pattern is not None and pattern.search(_folded(text)) is not None


def unnamed(text: str, aliases: Iterable[str]) -> tuple[str, ...]:
    """Those aliases that do not stand in `text`: to say the others would be an echo of it."""
    return tuple(alias for alias in aliases if not names_entity(text, [alias]))


@lru_cache(maxsize=4096)
def _pattern(aliases: tuple[str, ...]) -> re.Pattern[str] | None:
    wanted = {" ".join(_folded(alias).split()) for alias in aliases}
    choices = [_alias(alias) for alias in sorted(wanted) if alias.strip(". ")]
    # Word boundaries (\b) would fail next to a symbol; what counts is that no letter follows.
    return re.compile(rf"(?<!\w)(?:{'|'.join(choices)})(?!\w)") if choices else None


def _alias(alias: str) -> str:
    """An alias as a pattern: whitespace and full stops are flexible, everything else is literal."""
    parts = re.split(r"\s*\.\s*", alias)
    pattern = r"\s*\.\s*".join(r"\s+".join(map(re.escape, part.split())) for part in parts)
    # At the ends a full stop matches no whitespace: it would belong to the next word.
    return pattern.removeprefix(r"\s*").removesuffix(r"\s*")


def _folded(text: str) -> str:
    """One spelling for a letter, whichever way its accent and case are written."""
    return unicodedata.normalize("NFC", text).casefold()
