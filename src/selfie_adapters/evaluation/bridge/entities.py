"""Does a text name an entity? Its aliases, as whole words, however they are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache


def names_entity(text: str, aliases: Iterable[str]) -> bool:
    """Whether one of `aliases` stands in `text` as whole words.

    Letter case does not count, nor how many blanks part words, nor blanks around full stops
    ("J.D. Salinger" is "J. D. Salinger"). An alias may begin or end with a symbol: "C++" stands in
    "C++ code". Aliases without a letter, digit or symbol name nothing.
    """
    pattern = _pattern(tuple(aliases))
    return pattern is not None and pattern.search(_spelt(text)) is not None


def unnamed(text: str, aliases: Iterable[str]) -> tuple[str, ...]:
    """Those aliases that do not stand in `text`: to say the others would be an echo of it."""
    return tuple(alias for alias in aliases if not names_entity(text, [alias]))


@lru_cache(maxsize=4096)
def _pattern(aliases: tuple[str, ...]) -> re.Pattern[str] | None:
    wanted = {" ".join(_spelt(alias).split()) for alias in aliases}
    choices = [_alias(alias) for alias in sorted(wanted) if alias.strip(". ")]
    # Word boundaries (\b) would fail beside a symbol; what counts is that no letter goes on.
    return re.compile(rf"(?<!\w)(?:{'|'.join(choices)})(?!\w)") if choices else None


def _alias(alias: str) -> str:
    """An alias as a pattern: blanks and full stops give way, everything else is itself."""
    parts = re.split(r"\s*\.\s*", alias)
    pattern = r"\s*\.\s*".join(r"\s+".join(map(re.escape, part.split())) for part in parts)
    # At the ends a full stop brings no blanks along: they would eat into the next word's place.
    return pattern.removeprefix(r"\s*").removesuffix(r"\s*")


def _spelt(text: str) -> str:
    """One spelling for a letter, whichever way its accent and case are written."""
    return unicodedata.normalize("NFC", text).casefold()
