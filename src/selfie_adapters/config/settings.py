"""The base class of all settings, and how a YAML or JSON file becomes one checked, frozen object.

Unknown keys are refused with the nearest valid one; every problem is named with its place and fix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from selfie_adapters.config.problems import problem_text
from selfie_adapters.config.types import Option
from selfie_adapters.config.yaml_reading import parse_yaml, read_yaml, shortened
from selfie_adapters.errors import ConfigError, DataError, nearest
from selfie_adapters.files import existing_file, user_path

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_PROBLEMS_SHOWN = 20


class Settings(BaseModel):
    """Base of all sections: frozen, no unknown keys, attribute docstrings become descriptions."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    @classmethod
    def checked(cls, **values: object) -> Self:
        """Settings from values. Raises ConfigError that names every wrong one and why."""
        return check_settings(cls, values)


Config = TypeVar("Config", bound=Settings)


def check_settings(
    kind: type[Config],
    values: Mapping[str, Any],
    where: str | None = None,
    flags: Mapping[str, str] | None = None,
) -> Config:
    """The settings that `values`, nested as the sections are, make.

    where: the file they come from, for messages. flags: how a dotted key is called there, where it
    is an option of a command. Raises ConfigError that lists every problem with its place and fix.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = list(_problems(error, kind, flags or {}))
    if where is None and len(problems) == 1:
        raise ConfigError(problems[0])
    raise ConfigError("\n".join([f"{where or 'options'}:", *(f"  - {one}" for one in problems)]))


def read_config(
    path: str | Path,
    kind: type[Config],
    overrides: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
) -> Config:
    """Read a YAML (or JSON) file, change it by `overrides` ("section.key=value"), and check it.

    defaults: values of top-level keys that the file omits or leaves empty. given: values,
    nested as the sections are, that replace the file's. A path in the file is relative to the
    working directory, or, if nothing is there, to the file.
    Raises MissingFileError, or ConfigError that lists every problem with its place and fix.
    """
    file = existing_file(path)
    values = _read_values(file, kind)
    for override in overrides:
        _apply(values, override, kind)
    values = merged(_from_file(values, kind, file), given or {})
    for name, value in (defaults or {}).items():
        if values.get(name) is None:
            values[name] = value
    # A section that is present but empty reads as null; where null is no value, all is default.
    for name, field in _fields(kind).items():
        empty = name in values and values[name] is None
        if empty and not field.is_required() and own_section(field.annotation) is field.annotation:
            values[name] = {}
    return check_settings(kind, values, str(file))


def changed(settings: Config, given: Mapping[str, Any] | None) -> Config:
    """Settings with the values in `given`, nested as the sections are. Raises ConfigError."""
    if not given:
        return settings
    return check_settings(type(settings), merged(settings.model_dump(), given))


def merged(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with those of `given` in their place, section by section."""
    result = dict(values)
    for name, value in given.items():
        former = result.get(name)
        if isinstance(value, dict) and isinstance(former, dict):
            value = merged(former, value)
        result[name] = value
    return result


def _from_file(values: dict[str, Any], kind: type[Settings], file: Path) -> dict[str, Any]:
    """Values with their paths resolved: as they are, or next to the file where only that exists."""
    result = dict(values)
    for name, field in _fields(kind).items():
        value, section = result.get(name), own_section(field.annotation)
        if section is not None and isinstance(value, dict):
            result[name] = _from_file(value, section, file)
        elif value is not None and _names_file(field):
            result[name] = _beside_each(value, file)
    return result


def _beside_each(value: Any, file: Path) -> Any:
    if isinstance(value, dict):
        return {key: _beside_each(one, file) for key, one in value.items()}
    if isinstance(value, list):
        return [_beside_each(one, file) for one in value]
    # A single word ("demo") is a name, not a path.
    is_path = isinstance(value, str) and ("/" in value or bool(Path(value).suffix))
    return beside(file, value) if is_path else value


def _names_file(field: FieldInfo) -> bool:
    def marked(annotation: Any) -> bool:
        metadata = getattr(annotation, "__metadata__", ())
        return _is_file(metadata) or any(map(marked, get_args(annotation)))

    return _is_file(field.metadata) or marked(field.annotation)


def _is_file(metadata: Iterable[Any]) -> bool:
    return any(isinstance(one, Option) and one.file for one in metadata)


def top_level_keys(path: str | Path, kind: type[Settings]) -> set[str]:
    """Keys of a configuration file as they are written, before they are checked.

    kind: what to name keys of in messages. Raises MissingFileError, ConfigError.
    """
    return {str(key) for key in _read_values(existing_file(path), kind)}


def beside(config_file: str | Path, path: str) -> str:
    """A relative path counts from the current folder, or else from the configuration's own."""
    given = user_path(path)
    near = user_path(config_file).parent / given
    try:
        found_near = not given.is_absolute() and not given.exists() and near.exists()
    except OSError:  # no path can be that long; whoever opens it says so
        return path
    return str(near) if found_near else path


def _read_values(file: Path, kind: type[Settings]) -> dict[str, Any]:
    try:
        values = read_yaml(file)
    except DataError as error:
        raise ConfigError(str(error)) from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise ConfigError(
            f"{file}: keys such as {', '.join(list(kind.model_fields)[:4])} are expected, found "
            f"{found}. See training/configs and evaluation/configs for complete files."
        )
    return values


def _apply(values: dict[str, Any], override: str, kind: type[Settings]) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    shown = f"--set {shortened(override)!s}"
    if not equals or not key:
        raise ConfigError(f"{shown}: key=value is expected, such as --set seed=1.")
    known = list(_dotted_keys(kind))
    if key not in known:
        raise ConfigError(f"{shown}: unknown key {shortened(key)}. {nearest(key, known)}")
    try:
        value = parse_yaml(text, shown)
    except DataError as error:
        raise ConfigError(str(error)) from None
    *sections, last = key.split(".")
    place = values
    for section in sections:
        if place.get(section) is None:
            place[section] = {}
        if not isinstance(place[section], dict):
            break  # validation names what the file has in the section's place
        place = place[section]
    else:
        place[last] = value


def _section(annotation: Any) -> type[Settings] | None:
    """The section in a field's type, looked for inside `| None` and `list[…]` too."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)


def _fields(kind: type[BaseModel]) -> dict[str, FieldInfo]:
    """Fields by the key they have in a file."""
    return {field.alias or name: field for name, field in kind.model_fields.items()}


def own_section(annotation: Any) -> type[Settings] | None:
    """The section that a field is, or may be instead of null; none for lists of sections."""
    choices = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    sections = (one for one in choices if isinstance(one, type) and issubclass(one, Settings))
    return next(sections, None)


def _dotted_keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in _fields(kind).items():
        inner = own_section(field.annotation)
        if inner is not None:
            yield from _dotted_keys(inner, f"{prefix}{name}.")
        if inner is None or inner is not field.annotation:
            yield prefix + name


def _problems(
    error: ValidationError, kind: type[Settings], flags: Mapping[str, str]
) -> Iterator[str]:
    found = error.errors(include_url=False)
    for problem in found[:_PROBLEMS_SHOWN]:
        key = ".".join(str(part) for part in problem["loc"])
        place = flags.get(key) or flags.get(key.rpartition(".")[0]) or shortened(key)
        if problem["type"] == "extra_forbidden":
            hint = nearest(str(problem["loc"][-1]), _keys_beside(kind, problem["loc"]))
            yield f"{place}: unknown key. {hint}"
        else:
            # A rule of several fields has no place of its own and names them.
            about = f"{place}: " if place else ""
            yield f"{about}{problem_text(problem)}"
    if len(found) > _PROBLEMS_SHOWN:
        yield f"and {len(found) - _PROBLEMS_SHOWN:,} more."


def _keys_beside(kind: type[Settings], place: tuple[str | int, ...]) -> list[str]:
    """Valid keys of the section that contains the last part of `place`."""
    section = kind
    for part in place[:-1]:
        field = _fields(section).get(str(part))
        section = (_section(field.annotation) if field else None) or section
    return list(_fields(section))
