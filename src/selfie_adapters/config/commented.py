"""A configuration file with a comment for every key."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from selfie_adapters.config.reading import Settings, own_section

_WIDTH = 98


def commented(settings: Settings) -> str:
    """YAML with every key of `settings` and what it means, which reads back to equal settings."""
    return "\n".join(_lines(type(settings), settings.model_dump(mode="json"), "")) + "\n"


def _lines(kind: type[Settings], values: dict[str, Any], indent: str) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        text = " ".join((field.description or "").split())
        yield from textwrap.wrap(
            text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        section, value = own_section(field.annotation), values[name]
        if section is not None and isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from _lines(section, value, indent + "  ")
            if not indent:
                yield ""
            continue
        dumped = yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True)
        yield from (indent + line for line in dumped.splitlines())
