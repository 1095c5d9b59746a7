"""JSON from files that others wrote: one parser, whose only error is DataError."""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import msgspec

from selfie_adapters.errors import DataError
from selfie_adapters.files.memory import MEMORY_FLOOR, MEMORY_RATIO, too_large

_BOM = codecs.BOM_UTF8
# In valid JSON a backslash occurs only in strings, so scanning escape by escape is exact.
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair: one character
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"  # half of one
    rb"|\\.",
    re.DOTALL,
)
_NOT_FINITE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|(NaN|-?Infinity)', re.DOTALL)
_MARKS = b'{[:,"'
_PART = 2**18  # bytes that are looked at in one piece
# Bytes of decoded objects, measured with tracemalloc on CPython 3.11: an object of up to five keys,
# each further key, a list, a string without its characters, a number, and its place in a list.
_DICT, _KEY, _LIST, _STRING, _NUMBER, _SLOT = 192, 100, 80, 56, 32, 10


def parse_json(data: bytes | str, where: str, hint: str = "", *, line: int | None = None) -> Any:
    """The value of a JSON document in UTF-8, with or without a byte order mark.

    `where` names the source in messages, `hint` is added to them. Half of a surrogate pair (a text
    that was cut in the middle of an emoji) becomes U+FFFD, so that one label does not make the
    others unreadable and every string can be written as UTF-8. NaN and Infinity, which Python
    writes, are read. Of equal keys in an object the last counts. `line` is the number of the line
    that `data` is in a file of one document per line.

    Raises DataError with line and column for anything else: another encoding, nesting too deep,
    numbers out of range, and documents of tiny values whose objects would take more than
    MEMORY_RATIO times their size in memory (below MEMORY_FLOOR they always pass).
    """
    if line is not None:
        where = f"{where}, line {line}"
    raw = _utf8(data, where).removeprefix(_BOM)
    _refuse_other_encodings(raw, where)
    if not raw or raw.isspace():
        raise DataError(_sentence(f"{where}: empty; JSON is expected.", hint))
    with _named_errors(raw, where, hint, line):
        if not _grows(raw):
            return _decode(raw)
    raise too_large(where, len(raw))


def check_json(data: bytes, where: str, hint: str = "") -> None:
    """Raise what `parse_json` does for text that is no JSON, without keeping any of its values."""
    raw = data.removeprefix(_BOM)
    with _named_errors(raw, where, hint, None):
        reader = codecs.getincrementaldecoder("utf-8")()
        for start in range(0, len(raw), 2**20):
            reader.decode(raw[start : start + 2**20])
        msgspec.json.decode(mend_surrogates(raw), type=msgspec.Raw)


@contextmanager
def _named_errors(raw: bytes, where: str, hint: str, line: int | None) -> Iterator[None]:
    """What a decoder raises for `raw`, as a DataError with its position."""
    try:
        yield
    except RecursionError as error:
        raise DataError(_sentence(f"{where}: nested too deeply.", hint)) from error
    except UnicodeDecodeError as error:
        offset = _first_invalid(raw)
        at = _position(where, raw, offset, line)
        raise DataError(
            f"{at}: not UTF-8 text (byte 0x{raw[offset]:02x}). Save the file as UTF-8."
        ) from error
    except msgspec.ValidationError as error:
        raise DataError(_sentence(f"{where}: {_lower(str(error))}.", hint)) from error
    except msgspec.DecodeError as error:
        reason, offset = _reason(error, raw)
        at = _position(where, raw, offset, line)
        raise DataError(_sentence(f"{at}: not JSON ({reason}).", hint)) from error
    except json.JSONDecodeError as error:
        at = _position(where, error.doc.encode(), len(error.doc[: error.pos].encode()), line)
        raise DataError(_sentence(f"{at}: not JSON ({error.msg}).", hint)) from error
    except ValueError as error:  # Python's own limit of digits
        raise DataError(_sentence(f"{where}: a number is out of range.", hint)) from error


Kind = TypeVar("Kind")


def parse_json_as(data: bytes | str, where: str, kind: type[Kind]) -> Kind:
    """A JSON document as a msgspec type: only what `kind` names is kept, so that large documents
    whose bulk stays undecoded (`msgspec.Raw`) pass. NaN and Infinity become null.

    Raises DataError like `parse_json`, and for a value that `kind` does not allow, with its path.
    """
    raw = _utf8(data, where).removeprefix(_BOM)
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{where}: {_lower(str(error))}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = parse_json(raw, where)  # which has the reason, or the value
    try:
        return msgspec.json.decode(msgspec.json.encode(document), type=kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{where}: {_lower(str(error))}.") from error


def mend_surrogates(raw: bytes) -> bytes:
    """JSON text with U+FFFD in place of every escape that is half of a surrogate pair."""
    if b"\\u" not in raw:
        return raw
    return _ESCAPE.sub(lambda match: rb"\ufffd" if match[1] else match[0], raw)


def without_not_finite(raw: bytes, value: bytes = b"null") -> bytes:
    """JSON text with `value`, padded with spaces, in place of every NaN and Infinity."""
    text, start = bytearray(), 0
    for found in _not_finite(raw):
        text += memoryview(raw)[start : found.start()]
        text += value.ljust(found.end() - found.start())
        start = found.end()
    text += memoryview(raw)[start:]
    return bytes(text)


def _not_finite(raw: bytes) -> Iterator[re.Match[bytes]]:
    """Where JSON text has NaN or Infinity, which only Python writes."""
    if b"NaN" in raw or b"Infinity" in raw:
        yield from (found for found in _NOT_FINITE.finditer(raw) if found[1])


def _has_not_finite(raw: bytes) -> bool:
    return next(_not_finite(raw), None) is not None


def _decode(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        mended = mend_surrogates(raw)
        if _has_not_finite(raw):
            return json.loads(mended.decode())  # given bytes, it would let half characters pass
        if mended == raw:
            raise
        return msgspec.json.decode(mended)


def _utf8(data: bytes | str, where: str) -> bytes:
    if isinstance(data, bytes):
        return data
    try:
        return data.encode()
    except UnicodeEncodeError:
        return data.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _refuse_other_encodings(raw: bytes, where: str) -> None:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw[:4]:
        raise DataError(
            f"{where}: UTF-16 or UTF-32 text, or not text at all; UTF-8 is expected. "
            "Save the file as UTF-8."
        )


def _grows(raw: bytes) -> bool:
    """Whether the objects of a document would take more memory than a file may.

    Raises what decoding would, before it is measured.
    """
    limit = max(MEMORY_FLOOR, MEMORY_RATIO * len(raw)) - len(raw)
    if not_finite := _has_not_finite(raw):  # the decoder for these takes a copy, as characters
        limit -= ((b"\\u" in raw) + (1 if raw.isascii() else 4)) * len(raw)
    if _objects({mark: raw.count(mark) for mark in _MARKS}, len(raw)) <= limit:
        return False  # marks in strings count here too
    with suppress(msgspec.ValidationError):
        # Of the same length, so that positions stay.
        sound = without_not_finite(raw, b"0") if not_finite else raw
        msgspec.json.decode(mend_surrogates(sound), type=msgspec.Raw)  # keeps nothing
    return _objects(*_outside_strings(raw)) > limit


def _outside_strings(raw: bytes) -> tuple[Counter[int], int]:
    """How often each of _MARKS is outside of the strings of a document, and the bytes inside."""
    # Every quote that is left begins or ends a string.
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    counts, inside, held = Counter[int](), 0, 0
    for start in range(0, len(plain), _PART):
        parts = plain[start : start + _PART].split(b'"')
        outside = b"".join(parts[inside::2])
        for mark in _MARKS:
            counts[mark] += outside.count(mark)
        counts[ord('"')] += len(parts) - 1
        held += min(_PART, len(plain) - start) - len(outside)
        inside = (inside + len(parts) - 1) % 2
    return counts, held


def _objects(marks: Mapping[int, int], held: int) -> int:
    """Bytes that the objects of a document with these marks take; `held`: bytes in strings."""
    dicts, lists, keys, commas, quotes = (marks[mark] for mark in _MARKS)
    values = commas + dicts + lists  # the last of each has no comma after it
    strings = max(0, quotes // 2 - keys)
    numbers = max(0, values - strings - dicts - lists)
    shared = max(0, keys - 5 * dicts)
    objects = _DICT * dicts + _LIST * lists + _KEY * shared + _STRING * strings + _NUMBER * numbers
    return objects + _SLOT * values + held


def _first_invalid(raw: bytes) -> int:
    """The offset of the first byte that is not UTF-8."""
    start = 0
    while True:
        chunk = raw[start : start + 2**20]
        last = start + len(chunk) == len(raw)
        try:
            used = codecs.utf_8_decode(chunk, "strict", last)[1]
        except UnicodeDecodeError as error:
            return start + error.start
        if last:  # valid UTF-8 after all; the decoder knows why
            return 0
        start += used


def _reason(error: msgspec.DecodeError, raw: bytes) -> tuple[str, int]:
    """What the decoder found, and the offset in `raw`."""
    text = str(error)
    if match := re.search(r"JSON is malformed: (.*) \(byte (\d+)\)", text):
        return match[1], min(int(match[2]), len(raw))
    return ("it ends early" if "truncated" in text else _lower(text)), len(raw)


def _position(where: str, raw: bytes, offset: int, given_line: int | None) -> str:
    if given_line is not None:
        return f"{where}, column {offset + 1}"
    line = raw.count(b"\n", 0, offset) + 1
    column = offset - raw.rfind(b"\n", 0, offset)
    return f"{where}, line {line}, column {column}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _sentence(message: str, hint: str) -> str:
    return f"{message} {hint}".rstrip()
