"""Options of a command, taken from its settings class: one field, one option.

`options(Settings)` gives a command `command(settings, *, out=...)` a flag for every field of
`Settings` next to its own parameters. Name, type, default and help come from the field, and the
settings class alone checks the values.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import Parameter
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from selfie_adapters.config.files import find_config
from selfie_adapters.config.lists import split_numbers
from selfie_adapters.config.reading import Section, check_settings, merged, own_section, read_config
from selfie_adapters.config.types import Numbers, Option
from selfie_adapters.errors import ConfigError

Overwrite = Annotated[bool, Parameter(help="Replace files of the same name.")]
Json = Annotated[bool, Parameter(help="Print JSON instead: one object, or one per line.")]
"""Options that several commands take and that are no settings."""


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


@dataclass(frozen=True)
class Given:
    """What a command was given of its settings: values by section, a file, changes of its keys."""

    kind: type[Section]
    values: dict[str, Any]
    file: Path | None
    changes: Sequence[str]
    read: Callable[..., Any]
    flags: Mapping[str, str]

    def __bool__(self) -> bool:
        return bool(self.values or self.changes) or self.file is not None

    def settings(self, **otherwise: Any) -> Any:
        """The settings. otherwise: values by section where neither file nor options have one.

        Raises ConfigError for wrong values and where required ones are missing.
        """
        if self.file is not None:
            return self.read(self.file, self.kind, self.changes, given=self.values)
        if self.changes:
            raise ConfigError("--set changes a key of --config FILE; give the file too.")
        # Empty sections, so that it is their missing options that are named.
        sections = {
            name: {}
            for name, field in self.kind.model_fields.items()
            if field.is_required() and own_section(field.annotation) is not None
        }
        values = merged(merged(sections, otherwise), self.values)
        return check_settings(self.kind, values, flags=self.flags)


def options(
    kind: type[Section],
    *,
    config: bool = False,
    read: Callable[..., Any] = read_config,
    lazy: bool = False,
) -> Callable[[Callable[..., None]], Any]:
    """Decorate `command(settings, *, ...)` so that it has an option for every field of `kind`.

    config: values may come from a file, `--config FILE` and `--set KEY=VALUE`; options replace
    them, and the command is called with (settings, the file or None). read: how the file is read,
    as `read_config`. lazy: the command is called with `Given` alone, which makes the settings.
    Decorated, the command takes its options as keyword arguments; None means not given. Raises
    ConfigError for wrong values.
    """
    flags = {one.name: one for one in walk(kind)}
    called = {".".join(one.key): one.flag for one in flags.values()}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())
        own = own[2 if config and not lazy else 1 :]
        many = next((one.name for one in own if one.kind is one.VAR_POSITIONAL), None)
        shared = [one.parameter for one in flags.values()]
        if config:
            shared = [_optional(one) for one in shared]
        everything = [*(_CONFIG if config else ()), *shared, *map(_quiet, own)]
        signature = inspect.Signature(_in_order(everything))

        @functools.wraps(command)
        def run(*arguments: Any, **keywords: Any) -> None:
            words = signature.bind(*arguments, **keywords).arguments
            values: dict[str, Any] = {}
            for flag in flags.values():
                if (value := words.pop(flag.name, None)) is not None:
                    _put(values, flag.key, _read(flag, value))
            file, changes = words.pop("config", None), words.pop("set_", None)
            file = None if file is None else find_config(file)
            given = Given(kind, values, file, changes or (), read, called)
            first = [given] if lazy else [given.settings(), file] if config else [given.settings()]
            command(*first, *(words.pop(many, ()) if many else ()), **words)

        made: Any = run
        made.__signature__ = signature
        made.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
        made.settings = kind
        made.own = tuple(one.name for one in own)
        return made

    return decorate


def walk(kind: type[Section], prefix: str = "", key: tuple[str, ...] = ()) -> Iterator[Flag]:
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


def _own_first(kind: type[Section]) -> list[str]:
    """Names of the fields: those of the class, then those of its bases as they are listed."""
    own = (inspect.get_annotations(one) for one in kind.__mro__)
    return list(dict.fromkeys(n for names in own for n in names if n in kind.model_fields))


def _description(kind: type[Section], name: str) -> str:
    """A field's docstring on one line; that of a base class where the field has none of its own."""
    classes = (one for one in kind.__mro__ if issubclass(one, Section) and name in one.model_fields)
    found = (one.model_fields[name].description for one in classes)
    return " ".join((next(filter(None, found), None) or "").split())


def option_of(field: FieldInfo) -> Option:
    """How a field looks on the command line."""
    return next((one for one in reversed(field.metadata) if isinstance(one, Option)), Option())


_CONFIG = (
    inspect.Parameter(
        "config",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            str | None,
            Parameter(help="YAML or JSON file, or a name that selfie configs lists."),
        ],
    ),
    inspect.Parameter(
        "set_",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            list[str] | None,
            Parameter(
                name="--set",
                negative=(),
                help="Change a key of the file, such as --set seed=1; may be repeated.",
            ),
        ],
    ),
)


def _parameter(
    flags: list[str], field: FieldInfo, option: Option, kind: type[Section], name: str
) -> inspect.Parameter:
    plain, several = _type(field)
    default = field.get_default(call_default_factory=True) if not field.is_required() else None
    shown: Any = option.default
    if shown is None:
        shown = _shown(default)
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


def _read(flag: Flag, value: Any) -> Any:
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


def _put(values: dict[str, Any], key: tuple[str, ...], value: Any) -> None:
    *sections, last = key
    for section in sections:
        values = values.setdefault(section, {})
    values[last] = value


def _in_order(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """As Python asks: positional ones first, required ones before others."""
    return sorted(
        parameters,
        key=lambda one: (one.kind, one.kind != one.KEYWORD_ONLY and one.default is not one.empty),
    )


def _optional(parameter: inspect.Parameter) -> inspect.Parameter:
    """A required parameter as one that a file may give."""
    if parameter.default is not inspect.Parameter.empty:
        return parameter
    plain, described = get_args(parameter.annotation)
    return parameter.replace(default=None, annotation=Annotated[plain | None, described])


def _quiet(parameter: inspect.Parameter) -> inspect.Parameter:
    """A flag without the words "default: False"."""
    if parameter.default is not False:
        return parameter
    annotation = Annotated[parameter.annotation, Parameter(show_default=False)]
    return parameter.replace(annotation=annotation)


def _shown(default: Any) -> str | None:
    """A default as help shows it; None for one that needs no words."""
    if default is None or default is False or default == "" or isinstance(default, Section):
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
