"""A field of a settings class as an option of a command: name, type, default, help, value."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import Parameter, Token
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from selfie_adapters.config.lists import split_numbers
from selfie_adapters.config.settings import Settings, own_section
from selfie_adapters.config.types import Numbers, Option
from selfie_adapters.errors import ConfigError


@dataclass(frozen=True)
class Flag:
    """One option. key: the field's, from section to section. flag: the name it is shown with."""

    key: tuple[str, ...]
    flag: str
    field: FieldInfo
    parameter: inspect.Parameter

    @property
    def name(self) -> str:
        """The option as a keyword argument."""
        return self.parameter.name


def walk(kind: type[Settings], prefix: str = "", key: tuple[str, ...] = ()) -> Iterator[Flag]:
    """The options of `kind`, those of its sections included, in the order of the fields."""
    for name in _own_first(kind):
        field = kind.model_fields[name]
        option = option_of(field)
        section = own_section(field.annotation)
        if section is not None:
            inner = f"{name}-" if option.prefix is None else option.prefix
            yield from walk(section, prefix + inner, (*key, name))
            continue
        flags = [f"--{one}" for one in option.names] or [f"--{prefix}{name.replace('_', '-')}"]
        yield Flag((*key, name), flags[0], field, _parameter(flags, field, option, kind, name))


def _own_first(kind: type[Settings]) -> list[str]:
    """Names of the fields: those of the class, then those of its bases as they are listed."""
    own = (inspect.get_annotations(one) for one in kind.__mro__)
    return list(dict.fromkeys(n for names in own for n in names if n in kind.model_fields))


def _description(kind: type[Settings], name: str) -> str:
    """A field's docstring on one line; that of a base class where the field has none of its own."""
    classes = (
        one for one in kind.__mro__ if issubclass(one, Settings) and name in one.model_fields
    )
    found = (one.model_fields[name].description for one in classes)
    return " ".join((next(filter(None, found), None) or "").split())


def option_of(field: FieldInfo) -> Option:
    """How a field looks on the command line."""
    return next((one for one in reversed(field.metadata) if isinstance(one, Option)), Option())


def _parameter(
    flags: list[str], field: FieldInfo, option: Option, kind: type[Settings], name: str
) -> inspect.Parameter:
    plain, several = _type(field)
    default = field.get_default(call_default_factory=True) if not field.is_required() else None
    shown: Any = option.default
    if shown is None:
        shown = _shown(default)
    if option.positional and several:  # as many words as there are, none included
        words = Annotated[str, Parameter(help=_escaped(_description(kind, name)))]
        return inspect.Parameter(name, inspect.Parameter.VAR_POSITIONAL, annotation=words)
    annotation = Annotated[
        plain if field.is_required() else plain | None,
        Parameter(
            name=flags,
            help=_escaped(_description(kind, name)),
            negative=None if plain is bool else (),
            consume_multiple=several,
            allow_leading_hyphen=option.hyphen,
            show_default=False if shown is None else (lambda _value: shown),
            metavar=_METAVAR.get(_kind(field)),
            converter=_whole if plain is int else None,
        ),
    ]
    return inspect.Parameter(
        flags[0].removeprefix("--").replace("-", "_"),
        inspect.Parameter.POSITIONAL_OR_KEYWORD
        if option.positional
        else inspect.Parameter.KEYWORD_ONLY,
        # cyclopts checks a default against the annotation; None is what is not given.
        default=inspect.Parameter.empty if field.is_required() else None,
        annotation=annotation,
    )


def _whole(_type: Any, tokens: Sequence[Token]) -> int:
    """The number in one word; cyclopts alone would round 1.5 to 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f'unable to convert "{tokens[0].value}" into int.') from None


_METAVAR = {"numbers": "NUMBERS", "mapping": "NAME=VALUE"}


def _kind(field: FieldInfo) -> Literal["one", "several", "numbers", "mapping"]:
    """What a field's value is written as."""
    if Numbers in field.metadata:
        return "numbers"
    if any(isinstance(one, BeforeValidator) for one in field.metadata):
        return "one"  # text of a form of its own
    origins = {get_origin(one) for one in _choices(field.annotation)}
    if dict in origins or (list in origins and own_item(field.annotation)):
        return "mapping" if str not in _choices(field.annotation) else "one"
    return "several" if origins & {list, tuple} else "one"


def own_item(annotation: Any) -> bool:
    """Whether `annotation` is a list of sections."""
    items = (get_args(one) for one in _choices(annotation))
    return any(own_section(item) for one in items for item in one)


def _type(field: FieldInfo) -> tuple[Any, bool]:
    """What cyclopts reads a field as, and whether it may be several words."""
    if _kind(field) != "one":
        return list[str], True
    choices = [one for one in _choices(field.annotation) if get_origin(one) is not dict]
    plain = choices[0] if len(choices) == 1 else str
    return (plain if get_origin(plain) is Literal or plain in (bool, int, float) else str), False


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The types of a union without None, each without its metadata."""
    if get_origin(annotation) is Annotated:
        return _choices(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        inner = (_choices(one) for one in get_args(annotation) if one is not type(None))
        return tuple(one for choices in inner for one in choices)
    return (annotation,)


def value_of(flag: Flag, value: Any) -> Any:
    """The value of a field from what was written on the command line."""
    form = _kind(flag.field)
    if form == "numbers":
        try:
            return split_numbers(value)
        except ValueError as error:
            raise ConfigError(f"{flag.flag}: {error}.") from None
    if form == "mapping" and isinstance(value, list):
        pairs = [one.partition("=") for one in value]
        if wrong := [name for name, equals, _ in pairs if not equals]:
            raise ConfigError(f"{flag.flag} {wrong[0]}: NAME=VALUE is expected.")
        return {name: text for name, _, text in pairs}
    if form == "several" and _literals(flag.field.annotation):
        return [part.strip() for one in value for part in one.split(",")]
    return value


def _literals(annotation: Any) -> bool:
    items = (get_args(one) for one in _choices(annotation))
    return any(get_origin(item) is Literal for one in items for item in one)


def _shown(default: Any) -> str | None:
    """A default as help shows it; None for one that needs no words."""
    if default is None or default is False or default == "" or isinstance(default, Settings):
        return None
    if isinstance(default, (list, tuple)):
        return (
            ",".join(f"{one:g}" if isinstance(one, float) else str(one) for one in default) or None
        )
    if isinstance(default, Mapping):
        return None
    return f"{default:g}" if isinstance(default, float) else str(default)


def _escaped(text: str) -> str:
    """Text that reads as it is where cyclopts takes help for Markdown."""
    return re.sub(r"([\\`*_<>\[\]])", r"\\\1", text)
