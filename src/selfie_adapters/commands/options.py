"""Options of a command, taken from its settings class: one field, one option.

`options(Settings)` gives a command `command(settings, *, out=...)` a flag for every field of
`Settings` next to its own parameters. Name, type, default and help come from the field, and the
settings class alone checks the values.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from cyclopts import Parameter

from selfie_adapters.commands.flags import value_of, walk
from selfie_adapters.config.files import find_config
from selfie_adapters.config.settings import (
    Settings,
    check_settings,
    merged,
    own_section,
    read_config,
)
from selfie_adapters.errors import ConfigError
from selfie_adapters.files import user_path

Overwrite = Annotated[bool, Parameter(help="Replace files of the same name.")]
Json = Annotated[bool, Parameter(help="Print JSON instead: one object, or one per line.")]
"""Options that several commands take and that are no settings."""


@dataclass(frozen=True)
class Given:
    """What a command was given of its settings: values by section, a file, changes of its keys."""

    kind: type[Settings]
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
    kind: type[Settings],
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
        shared = [one.parameter for one in flags.values()]
        if config:
            shared = [_optional(one) for one in shared]
        everything = [*(_CONFIG if config else ()), *shared, *map(_quiet, own)]
        signature = inspect.Signature(_in_order(everything))

        @functools.wraps(command)
        def run(*arguments: Any, **keywords: Any) -> None:
            words = signature.bind(*arguments, **keywords).arguments
            if words.get("out") is not None:
                words["out"] = str(user_path(words["out"]))
            values: dict[str, Any] = {}
            for flag in flags.values():
                if (value := words.pop(flag.name, None)) is not None:
                    _put(values, flag.key, value_of(flag, value))
            file, changes = words.pop("config", None), words.pop("set_", None)
            file = None if file is None else find_config(file)
            given = Given(kind, values, file, changes or (), read, called)
            first = [given] if lazy else [given.settings(), file] if config else [given.settings()]
            command(*first, **words)

        made: Any = run
        made.__signature__ = signature
        made.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
        made.settings = kind
        made.own = tuple(one.name for one in own)
        return made

    return decorate


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
