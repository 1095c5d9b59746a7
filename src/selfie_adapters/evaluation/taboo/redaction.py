"""A topic's name taken out of a text, so that the rest of the text must identify the topic.

The rule, for "Tawny owls (birds)":
- text in parentheses at the end states which topic is meant and is not part of the name;
- the full name is removed, and each of its words except small words ("of", "the") and single
  characters (they are removed if the name has nothing else);
- case and accents do not matter; a word is removed in singular and plural (s, es, y/ies,
  f/ves, man/men), and with a possessive 's;
- only whole words are removed: "tin" stays in "routine". Scripts without spaces have no bounds.
Removed text is replaced by "___". Derived words (Canada, Canadian) stay.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

BLANK = "___"
_SMALL = frozenset(
    "a an and at by for from in into of off on or over the to under up with "
    "de der des di du el la las le les los und van von y".split()
)
_NO_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


@dataclass(frozen=True)
class Redacted:
    """`text` without the name; `found`: how often the name or a part of it occurred."""

    text: str
    found: int


def redact(text: str, name: str) -> Redacted:
    """`text` with `name`, its forms and its parts replaced by ___."""
    plain, places = _without_accents(text)
    pieces = sorted({form for part in _parts(name) for form in _forms(part)}, key=len, reverse=True)
    pattern = "|".join(_bounded(piece) for piece in pieces)
    result, end, found = [], 0, 0
    for match in re.finditer(pattern, plain) if pattern else ():
        start, stop = places[match.start()], places[match.end()]
        result += [text[end:start], BLANK]
        end, found = stop, found + 1
    if not found:
        return Redacted(text, 0)
    joined = "".join([*result, text[end:]])
    return Redacted(re.sub(rf"{BLANK}(?:[\s\-–]+{BLANK})+", BLANK, joined), found)


def _parts(name: str) -> list[str]:
    """The whole name and its words, without accents, in lower case."""
    whole = re.sub(r"\s*\([^()]*\)\s*$", "", name).strip() or name.strip()
    whole = _without_accents(whole)[0]
    words = re.findall(r"\w+", whole)
    telling = [word for word in words if len(word) > 1 and word not in _SMALL]
    return [part for part in [whole, *telling] if part]


def _forms(word: str) -> set[str]:
    """Singular and plural of a word; possessives are met by the pattern."""
    forms = {word, word + "s", word + "es"}
    for end, other in (("y", "ies"), ("f", "ves"), ("fe", "ves"), ("man", "men")):
        if word.endswith(end):
            forms.add(word.removesuffix(end) + other)
        if word.endswith(other):
            forms.add(word.removesuffix(other) + end)
    for end in ("s", "es"):
        if word.endswith(end) and len(word) > len(end) + 2 and not word.endswith("ss"):
            forms.add(word.removesuffix(end))
    return forms


def _bounded(piece: str) -> str:
    # Spaces and hyphens are interchangeable: "post-war" and "post war".
    body = r"[\s\-–]+".join(re.escape(word) for word in re.split(r"[\s\-–]+", piece) if word)
    before = r"(?<!\w)" if _has_bounds(piece[0]) else ""
    after = r"(?:['’]s|['’](?=\s))?(?!\w)" if _has_bounds(piece[-1]) else ""
    return f"{before}{body}{after}"


def _has_bounds(character: str) -> bool:
    """Whether the script of this character separates words by spaces."""
    return not unicodedata.name(character, "").startswith(_NO_SPACES)


def _without_accents(text: str) -> tuple[str, list[int]]:
    """Lower case without accents, and where in `text` each character comes from, and the end."""
    plain, places = [], []
    for place, character in enumerate(text):
        for piece in unicodedata.normalize("NFKD", character).casefold():
            if not unicodedata.combining(piece):
                plain.append(piece)
                places.append(place)
    return "".join(plain), [*places, len(text)]
