"""Ways to damage files: at the level of bytes, and of the structure they encode."""

from __future__ import annotations

import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import yaml

_QUICK_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
Mutation = Callable[[random.Random, bytes], bytes]

_INTEGERS = (0, 1, 127, 128, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_PIECES = (
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\n", b"\r\n",
    b"\\ud83d", b'"', b",", b"{", b"}", b"[", b"]", b":", b"null", b"NaN", b"-1", b"9" * 30,
    b"9" * 5000, b"1e999", b"[" * 2000, b"%n%s", b"../", b"\xe2\x80\xa8",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, 2**64, -(2**63) - 1, 10**40, 0.5, -0.0, 1e300,
    float("nan"), float("inf"), "", " ", "train", "val", "0", "-1", "1.5", "a" * 5000,
    "é\U0001f600", "\ud83d", "a\0b", "../../x", "/etc/passwd", "~nobody_of_this_name/x", "~",
    "x\ny", [], {}, [[]], ["train"], [None], {"a": {}}, [1, "a", None], {"": ""},
)  # fmt: skip


def damage_bytes(rng: random.Random, data: bytes) -> bytes:
    """One to four random edits: bits, bytes, integers, pieces cut, doubled, moved or put in."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        end = min(len(changed), at + rng.choice((1, 2, 4, 8, 30, 200)))
        match rng.randrange(9):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(changed):
                changed[at] = rng.randrange(256)
            case 2:
                del changed[at:end]
            case 3:
                changed[at:at] = changed[at:end]
            case 4:
                del changed[at:]
            case 5:
                changed[at:at] = rng.choice(_PIECES)
            case 6:
                size = rng.choice((1, 2, 4, 8))
                number = rng.choice(_INTEGERS) % 2 ** (8 * size)
                changed[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))
            case 7:
                other = rng.randrange(len(changed) + 1)
                changed[at:end] = changed[other : other + end - at]
            case _:
                changed[at:end] = rng.randbytes(end - at)
    return bytes(changed)


def damage_value(rng: random.Random, value: Any) -> Any:
    """A copy of plain data with one node replaced, removed, renamed, doubled or wrapped."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return _other(rng, value)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        match rng.randrange(8):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {(_other_key(rng, k) if k == key else k): v for k, v in value.items()}
            case 2:
                return {**value, key: _other(rng, value[key])}
            case _:
                return {**value, key: damage_value(rng, value[key])}
    at = rng.randrange(len(value))
    match rng.randrange(8):
        case 0:
            return value[:at] + value[at + 1 :]
        case 1:
            return [*value, value[at]]
        case 2:
            return [*value[:at], _other(rng, value[at]), *value[at + 1 :]]
        case _:
            return [*value[:at], damage_value(rng, value[at]), *value[at + 1 :]]


def damage_json(rng: random.Random, data: bytes) -> bytes:
    """JSON or JSON lines with one value damaged; one time in four, its bytes."""
    if rng.random() < 0.25:
        return damage_bytes(rng, data)
    try:
        return json.dumps(damage_value(rng, json.loads(data))).encode()
    except ValueError:
        lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    try:
        line = json.dumps(damage_value(rng, json.loads(lines[at]))).encode() + b"\n"
    except ValueError:
        line = damage_bytes(rng, lines[at])
    return b"".join([*lines[:at], line, *lines[at + 1 :]])


def damage_yaml(rng: random.Random, data: bytes) -> bytes:
    """YAML with one value damaged; one time in three, its bytes."""
    if rng.random() < 0.33:
        return damage_bytes(rng, data)
    value = damage_value(rng, _yaml_value(data))
    unicode = rng.random() < 0.5
    for dumper in (_QUICK_DUMPER, yaml.SafeDumper):  # libyaml's writes no half of a surrogate pair
        with suppress(yaml.YAMLError, UnicodeEncodeError):
            text = yaml.dump(value, Dumper=dumper, allow_unicode=unicode)
            return text.encode(errors="replace")
    return damage_bytes(rng, data)


@cache
def _yaml_value(data: bytes) -> Any:
    return yaml.safe_load(data)


def damage_inside_gzip(mutate: Mutation) -> Mutation:
    """What is packed is damaged by `mutate`; one time in four, the gzip data itself."""

    def damage(rng: random.Random, data: bytes) -> bytes:
        if rng.random() < 0.25:
            return damage_bytes(rng, data)
        return gzip.compress(mutate(rng, gzip.decompress(data)), 1, mtime=0)

    return damage


def damage_inside_zip(mutate: Mutation) -> Mutation:
    """One member of a zip archive is damaged and its checksum made right; or the archive itself."""

    def damage(rng: random.Random, data: bytes) -> bytes:
        if rng.random() < 0.25:
            return damage_bytes(rng, data)
        members = _zip_members(data)
        at = rng.randrange(len(members))
        target = io.BytesIO()
        kind = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
        with zipfile.ZipFile(target, "w", kind) as archive:
            for number, (name, content) in enumerate(members):
                if number == at and rng.random() < 0.1:
                    continue  # a member is missing
                archive.writestr(name, mutate(rng, content) if number == at else content)
        return target.getvalue()

    return damage


@cache
def _zip_members(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def damage_safetensors(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file with one value of its header damaged; one time in four, its bytes."""
    if rng.random() < 0.25:
        return damage_bytes(rng, data)
    end = 8 + int.from_bytes(data[:8], "little")
    header = damage_value(rng, json.loads(data[8:end]))
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if isinstance(metadata, dict) and rng.random() < 0.5:  # JSON in JSON
        for key, text in metadata.items():
            if isinstance(text, str) and text.startswith("{") and key.endswith("_json"):
                metadata[key] = damage_json(rng, text.encode()).decode(errors="replace")
    text = json.dumps(header, ensure_ascii=rng.random() < 0.5).encode(errors="replace")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def _other(rng: random.Random, value: Any) -> Any:
    """Another value, in the place of this one."""
    match rng.randrange(6):
        case 0:
            return [value]
        case 1:
            return {"x": value}
        case 2:
            return str(value)
        case 3 if isinstance(value, int | float):
            return value * rng.choice((-1, 0, 2, 10**6, 0.5))
        case 4:
            deep: Any = value
            for _ in range(rng.choice((2, 60, 300))):
                deep = [deep]
            return deep
        case _:
            return rng.choice(_VALUES)


def _other_key(rng: random.Random, key: Any) -> Any:
    return rng.choice((f"{key}x", str(key)[:-1], str(key).upper(), "", "x", "\ud83d", f"{key} "))
