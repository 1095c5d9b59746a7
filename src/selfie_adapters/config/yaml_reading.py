"""YAML from outside: plain values in bounded time and memory, or an error that names the line.

Only what a configuration needs is read: text, numbers, true and false, null, lists and mappings
with text keys, anchors and merge keys. Other tags (dates, binary data, Python objects) are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.resolver import Resolver

from selfie_adapters.errors import DataError
from selfie_adapters.files import existing_file

MAX_BYTES = 2**20  # PyYAML reads about 250 kB per second
MAX_DEPTH = 40
MAX_VALUES = 100_000  # PyYAML takes 600 bytes for each; after aliases are expanded too
MAX_DIGITS = 100

_TAG = "tag:yaml.org,2002:"
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_TRUTHS = yaml.SafeLoader.bool_values


def parse_yaml(data: bytes | str, where: str) -> Any:
    """The value of one YAML document; the keys of its mappings are always text.

    data: text, or bytes in UTF-8 or UTF-16 (with a byte order mark). where: names it in errors.
    A number that YAML 1.1 would read in base 60 (`4:28:4`) and a date are text.
    Raises DataError with the line for everything that is not such a document.
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"{where}: more than {MAX_BYTES:,} bytes; a configuration has fewer.")
    try:
        node = _node(data)
        return None if node is None else _Builder().value(node, 0)
    except _Refused as error:
        raise DataError(f"{where}, line {error.line}: {error}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        if isinstance(error, yaml.reader.ReaderError):
            reason = f"{reason}, position {error.position}"
        raise DataError(f"{where}{place}: not valid YAML ({shortened(reason)}).") from None
    except (ValueError, OverflowError) as error:  # "\UFFFFFFFF", a version of 5,000 digits
        raise DataError(f"{where}: not valid YAML ({shortened(str(error))}).") from None


def read_yaml(path: str | Path) -> Any:
    """The value in a YAML file; see `parse_yaml`.

    Raises MissingFileError, or DataError for a file that cannot be read or is no such document.
    """
    file = existing_file(path)
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)  # one more, so that a longer file is noticed
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}).") from error
    return parse_yaml(data, str(file))


def shortened(text: str, length: int = 120) -> str:
    """`text` on one line, its middle cut out where it is longer than `length` characters."""
    line = " ".join(text.split()) if "\n" in text else text
    return line if len(line) <= length else f"{line[: length - 20]} … {line[-15:]}"


class _Refused(Exception):
    def __init__(self, node: yaml.Node, message: str) -> None:
        super().__init__(message)
        self.line = node.start_mark.line + 1


class _Composer(Composer, Resolver):
    """Nodes of a document from a parser's events: MAX_VALUES at most, no deeper than MAX_DEPTH,
    because composing recurses for each level."""

    def __init__(self, parser: Any) -> None:
        Composer.__init__(self)
        Resolver.__init__(self)
        self.check_event = parser.check_event
        self.peek_event = parser.peek_event
        self.get_event = parser.get_event
        self.depth = 0
        self.count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        self.count += 1
        if self.depth > MAX_DEPTH or self.count > MAX_VALUES:
            deep = f"nested deeper than {MAX_DEPTH}"
            problem = deep if self.depth > MAX_DEPTH else f"more than {MAX_VALUES:,} values"
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_UNLIKE_TEXT, _UNLIKE_BYTES = re.compile(r"[\t!]"), re.compile(rb"[\t!]")
_QuickParser = getattr(yaml, "CBaseLoader", None)  # libyaml's; PyYAML may be built without it


class _PythonParser(yaml.BaseLoader):
    def scan_to_next_token(self) -> None:
        super().scan_to_next_token()
        # PyYAML takes no tabs; between brackets they are allowed, and JSON is written with them.
        while self.flow_level and self.peek() == "\t":
            self.forward()
            super().scan_to_next_token()


def _node(data: bytes | str) -> yaml.Node | None:
    """The root node. libyaml parses several times as fast; what it refuses goes to the Python
    parser, which reads a little more (JSON's surrogate pairs) and describes faults better. So does
    what the two read differently: tabs, and the tag `!`."""
    unlike = _UNLIKE_TEXT.search(data) if isinstance(data, str) else _UNLIKE_BYTES.search(data)
    if _QuickParser is not None and unlike is None:
        with suppress(yaml.YAMLError, ValueError):
            return _Composer(_QuickParser(data)).get_single_node()
    parser = _PythonParser(data)
    try:
        return _Composer(parser).get_single_node()
    finally:
        parser.dispose()  # its parts refer to each other


class _Builder:
    """Values of nodes. Each value counts each time it is reached, so aliases cannot multiply."""

    def __init__(self) -> None:
        self.count = 0

    def value(self, node: yaml.Node, depth: int) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise _Refused(node, f"more than {MAX_VALUES:,} values, counting those of aliases")
        if depth > MAX_DEPTH:
            raise _Refused(node, f"nested deeper than {MAX_DEPTH}, or an alias inside itself")
        name = node.tag.removeprefix(_TAG)
        kind = {"map": yaml.MappingNode, "seq": yaml.SequenceNode}.get(name, yaml.ScalarNode)
        if (name not in _SCALARS and kind is yaml.ScalarNode) or not isinstance(node, kind):
            shown = "!!" + name if name != node.tag else node.tag
            raise _Refused(
                node, f"not valid YAML here: the tag {shortened(shown)} is not read; remove it"
            )
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1) for item in node.value]
        assert isinstance(node, yaml.ScalarNode)
        return _SCALARS[name](node)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Refused(key, "a key is a list or a mapping; write text")
            if key.tag == _TAG + "merge":
                merged = self._merged(value, depth) | merged
                continue
            name = _text(key)
            if name in own:
                raise _Refused(key, f"the key {shortened(name)} is written twice. Keep one")
            own[name] = self.value(value, depth + 1)
        return merged | own

    def _merged(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        """What `<<: *a` or `<<: [*a, *b]` brings in; the first of a list wins."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        result: dict[str, Any] = {}
        for part in parts:
            value = self.value(part, depth + 1)
            if not isinstance(value, dict):
                raise _Refused(part, "<< merges mappings, found something else")
            result = value | result
        return result


def _text(node: yaml.ScalarNode) -> str:
    text = node.value
    if _SURROGATE.search(text):
        try:  # JSON writes a character beyond 16 bits as two halves
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            raise _Refused(node, "half of a surrogate pair; write the character itself") from None
    if "\0" in text:
        raise _Refused(node, "a NUL character; remove it")
    return text


def _integer(node: yaml.ScalarNode) -> int | str:
    text = node.value
    if ":" in text:
        return _text(node)
    if len(text) > MAX_DIGITS:
        raise _Refused(node, f"a number of {len(text):,} digits; at most {MAX_DIGITS} are read")
    digits = text.replace("_", "")
    try:
        # 0x1f, 0b11, and as in YAML 1.1 010 is 8
        old_octal = re.fullmatch(r"([-+]?)0([0-7]+)", digits)
        return int(f"{old_octal[1]}0o{old_octal[2]}" if old_octal else digits, 0)
    except ValueError:
        raise _Refused(node, f"not valid YAML: {shortened(text)!r} is not an integer") from None


def _floating(node: yaml.ScalarNode) -> float | str:
    text = node.value.casefold().replace("_", "")
    if ":" in text:
        return _text(node)
    if len(text) > 10 * MAX_DIGITS:
        raise _Refused(node, f"a number of {len(text):,} characters; write fewer digits")
    special = re.fullmatch(r"([-+]?)\.(inf|nan)", text)
    try:
        return float(special[1] + special[2] if special else text)
    except ValueError:
        raise _Refused(node, f"not valid YAML: {shortened(text)!r} is no number") from None


def _truth(node: yaml.ScalarNode) -> bool:
    try:
        return _TRUTHS[node.value.casefold()]
    except KeyError:
        shown = shortened(node.value)
        raise _Refused(node, f"not valid YAML: {shown!r} is neither true nor false") from None


_SCALARS: Mapping[str, Callable[[yaml.ScalarNode], Any]] = {
    "str": _text,
    "int": _integer,
    "float": _floating,
    "bool": _truth,
    "null": lambda _node: None,
}
_AS_TEXT = {_TAG + "timestamp", _TAG + "value"}  # a date, and the sign = alone
_Composer.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _AS_TEXT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.1 reads 1e-3 as text because it has no point; JSON and other readers take the number.
_EXPONENT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$")
_Composer.add_implicit_resolver(_TAG + "float", _EXPONENT, list("-+.0123456789"))
