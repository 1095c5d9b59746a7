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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import Parameter
from pydantic.fields import FieldInfo

from selfie_adapters.config.files import find_config
from selfie_adapters.config.lists import split_numbers
from selfie_adapters.config.reading import Section, check_settings, own_section, read_config
from selfie_adapters.config.types import Numbers, Option
from selfie_adapters.errors import ConfigError

NO_NEGATIVE = Parameter(negative=())


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


def options(
    kind: type[Section],
    *,
    config: bool = False,
    read: Callable[..., Any] = read_config,
    without: tuple[str, ...] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate `command(settings, *, ...)` so that it has an option for every field of `kind`.

    config: values may come from a file, `--config FILE` and `--set KEY=VALUE`; options replace
    them, and the command is called with (settings, the file or None). read: how the file is read,
    as `read_config`. without: dotted keys that are no options. Decorated, the command takes its
    options as keyword arguments; None means not given. Raises ConfigError for wrong values.
    """
    flags = {one.name: one for one in walk(kind) if ".".join(one.key) not in without}
    called = {".".join(one.key): one.flag for one in flags.values()}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())
        own = own[2 if config else 1 :]
        shared = [one.parameter for one in flags.values()]
        if config:
            shared = [one.replace(default=_default(one.default, None)) for one in shared]
        signature = inspect.Signature(_in_order([*(_CONFIG if config else ()), *shared, *own]))

        @functools.wraps(command)
        def run(*arguments: Any, **keywords: Any) -> None:
            given = signature.bind(*arguments, **keywords).arguments
            values: dict[str, Any] = {}
            for name, value in list(given.items()):
                if name in flags:
                    del given[name]
                    if value is not None:
                        _put(values, flags[name].key, _read(flags[name], value))
            if not config:
                command(check_settings(kind, values, flags=called), **given)
                return
            file, changes = given.pop("config", None), given.pop("set_", None)
            if file is None:
                if changes:
                    raise ConfigError("--set changes a key of --config FILE; give the file too.")
                settings = check_settings(kind, values, flags=called)
            else:
                file = find_config(file)
                settings = read(file, kind, changes or (), given=values)
            command(settings, file, **given)

        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
        run.settings = kind  # type: ignore[attr-defined]
        run.own = tuple(one.name for one in own)  # type: ignore[attr-defined]
        return run

    return decorate


def walk(kind: type[Section], prefix: str = "", key: tuple[str, ...] = ()) -> Iterator[Flag]:
    """The options of `kind`, those of its sections included, in the order of the fields."""
    for name, field in kind.model_fields.items():
        option = option_of(field)
        section = own_section(field.annotation)
        if section is not None:
            inner = f"{name}-" if option.prefix is None else option.prefix
            yield from walk(section, prefix + inner, (*key, name))
            continue
        flags = [f"--{one}" for one in option.names] or [f"--{prefix}{name.replace('_', '-')}"]
        yield Flag((*key, name), flags[0], field, _parameter(flags, field, option, prefix))


def option_of(field: FieldInfo) -> Option:
    """How a field looks on the command line."""
    return next((one for one in field.metadata if isinstance(one, Option)), Option())


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


def _parameter(flags: list[str], field: FieldInfo, option: Option, prefix: str) -> Any:
    plain, several = _type(field)
    default = field.get_default(call_default_factory=True) if not field.is_required() else None
    shown: Any = option.default
    if shown is None:
        shown = _shown(default)
    annotation = Annotated[
        plain if field.is_required() else plain | None,
        Parameter(
            name=flags,
            help=_escaped(" ".join((field.description or "").split())),
            negative=None if plain is bool else (),
            consume_multiple=several,
            allow_leading_hyphen=option.hyphen or several,
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


def _default(default: Any, instead: Any) -> Any:
    return instead if default is inspect.Parameter.empty else default


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
