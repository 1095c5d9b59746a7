"""Reading a configuration file: YAML or JSON in, one frozen, checked object out.

Unknown keys are refused with the nearest valid one; every problem is named with its place and fix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from selfie_adapters.errors import ConfigError, nearest
from selfie_adapters.files import existing_file


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, attribute docstrings become descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )


Config = TypeVar("Config", bound=Section)


def read_config(
    path: str | Path,
    kind: type[Config],
    overrides: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """Read a YAML (or JSON) file, change it by `overrides` ("section.key=value"), and check it.

    defaults: values of top-level keys that the file leaves out or leaves empty.
    Raises MissingFileError, or ConfigError that lists every problem with its place and fix.
    """
    file = existing_file(path)
    values = _read_yaml(file, kind)
    for override in overrides:
        _apply(values, override, kind)
    for name, value in (defaults or {}).items():
        if values.get(name) is None:
            values[name] = value
    # A section that is present but empty reads as null.
    for name, field in kind.model_fields.items():
        if not field.is_required() and _section(field.annotation) and name in values:
            values[name] = {} if values[name] is None else values[name]
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  - {line}" for line in _problems(error, kind))
        raise ConfigError(f"{file}:\n{problems}") from error


def beside(config_file: str | Path, path: str) -> str:
    """A relative path counts from the current folder, or else from the configuration's own."""
    given = Path(path).expanduser()
    near = Path(config_file).expanduser().parent / given
    return str(near) if not given.is_absolute() and not given.exists() and near.exists() else path


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice and reads 1e-2 as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                line = key.start_mark.line + 1
                raise ConfigError(f"line {line}: the key {name} is written twice. Keep one.")
            seen.add(name)
        return super().construct_mapping(node, deep)


def _read_yaml(file: Path, kind: type[Section]) -> dict[str, Any]:
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except ConfigError as error:
        raise ConfigError(f"{file}, {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{file}{place}: not valid YAML ({reason}).") from error
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise ConfigError(
            f"{file}: keys such as {', '.join(list(kind.model_fields)[:4])} are expected, found "
            f"{found}. See training/configs and evaluation/configs for complete files."
        )
    return values


def _apply(values: dict[str, Any], override: str, kind: type[Section]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: key=value is expected, such as --set seed=1.")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: {text!r} is not valid YAML.") from error
    known = list(_dotted_keys(kind))
    key = key.strip()
    if key not in known:
        raise ConfigError(f"--set {override}: unknown key {key}. {nearest(key, known)}")
    *sections, last = key.split(".")
    place = values
    for section in sections:
        if not isinstance(place.get(section), dict):
            place[section] = {}
        place = place[section]
    place[last] = value


def _section(annotation: Any) -> type[Section] | None:
    """The section in a field's type, looked for inside `| None` and `list[…]` too."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)


def _dotted_keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from _dotted_keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def _problems(error: ValidationError, kind: type[Section]) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        place = ".".join(str(part) for part in problem["loc"])
        found = problem.get("input")
        if problem["type"] == "extra_forbidden":
            hint = nearest(str(problem["loc"][-1]), _keys_beside(kind, problem["loc"]))
            yield f"{place}: unknown key. {hint}"
        elif problem["type"] == "missing":
            yield f"{place}: missing. Add it."
        else:
            message = problem["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(found, dict) else f", found {found!r}"
            if isinstance(found, float) and not math.isfinite(found):
                shown = f", found {found}"
            yield f"{place}: {message}{shown}."


def _keys_beside(kind: type[Section], place: tuple[str | int, ...]) -> list[str]:
    """Valid keys of the section in which the last part of `place` stands."""
    section = kind
    for part in place[:-1]:
        field = section.model_fields.get(str(part))
        section = (_section(field.annotation) if field else None) or section
    return list(section.model_fields)
