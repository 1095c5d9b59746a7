"""Standard output and error, whatever they are: any encoding, any width, closed at any moment."""

from __future__ import annotations

import codecs
import io
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

LEAST_COLUMNS = 60
"""Tables are laid out for at least this width; a narrower terminal wraps their lines itself."""
SILENT, REPEATS, EMPTY = "·", "↺", "∅"
"""For a withheld label; after one that repeats words of its prompt; for a label without text."""
CLOSED = 141  # as a shell counts a process that SIGPIPE ended

_ESCAPED = "selfie-json-escapes"
JOINERS = "\u200c\u200d"  # they build emoji and Persian words, and hide nothing


def visible(text: str, keep: str = "") -> str:
    """`text` with what cannot be seen, or would turn the text around it, written as an escape.

    For strings from outside (labels, names, answers of servers): a terminal would obey their
    control characters. keep: characters that stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(repr(c)[1:-1] if _is_hidden(c) and c not in keep else c for c in text)


def json_line(value: Any) -> str:
    """JSON on one line, to be printed: other alphabets as they are, what is not visible escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(_json_escape(c) if _is_hidden(c) else c for c in text)


def _is_hidden(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in JOINERS


def _json_escape(text: str) -> str:
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _escape(error: UnicodeError) -> tuple[str, int]:
    """JSON's escapes in place of what an encoding does not have: JSON output stays valid."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return _json_escape(error.object[error.start : error.end]), error.end


codecs.register_error(_ESCAPED, _escape)


@contextmanager
def prepared() -> Iterator[None]:
    """While the block runs, every character can be printed, and tables have some width."""
    former = [(stream, stream.errors) for stream in _text_streams()]
    columns = os.environ.get("COLUMNS")
    for stream, _ in former:
        stream.reconfigure(errors=_ESCAPED)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the command
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    width = shutil.get_terminal_size().columns  # of the terminal, where COLUMNS is 0 or no number
    if width < LEAST_COLUMNS or (columns is not None and columns != str(width)):
        os.environ["COLUMNS"] = str(max(width, LEAST_COLUMNS))
    try:
        yield
    finally:
        for stream, errors in former:
            with suppress(ValueError, OSError):  # closed by now
                stream.reconfigure(errors=errors)
        if columns is None:
            os.environ.pop("COLUMNS", None)
        else:
            os.environ["COLUMNS"] = columns


def drop() -> None:
    """Nobody can receive the output any more: what is left of it goes nowhere, without an error."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _text_streams() -> list[io.TextIOWrapper]:
    return [one for one in (sys.stdout, sys.stderr) if isinstance(one, io.TextIOWrapper)]
