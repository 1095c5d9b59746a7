"""No option is listed twice: what a settings class has, no command declares again."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

from selfie_adapters.cli import app
from selfie_adapters.commands.flags import walk
from selfie_adapters.commands.options import Json, Overwrite

SHARED = {"json": Json, "overwrite": Overwrite}


def commands(group: Any = app, name: str = "selfie") -> Iterator[tuple[str, Any]]:
    """Every command of the table, by its words."""
    for word in group:
        if word.startswith("-"):
            continue
        inner = group[word]
        function = inner.default_command
        if function is not None:
            yield f"{name} {word}", function
        yield from commands(inner, f"{name} {word}")


EVERY = dict(commands())


def test_a_whole_number_is_not_rounded(capsys):
    with pytest.raises(SystemExit):
        app("label x.json --limit 1.5")
    assert 'unable to convert "1.5" into int' in " ".join(capsys.readouterr().err.split())


def own(function: Any) -> list[inspect.Parameter]:
    """Parameters that the command declares itself."""
    parameters = inspect.signature(function, eval_str=True).parameters
    return [parameters[name] for name in function.own]


def test_the_table_is_walked():
    assert {"selfie train", "selfie label", "selfie eval loss", "selfie prepare sae"} <= {*EVERY}


def test_every_command_takes_its_options_from_a_class_of_settings():
    for command, function in EVERY.items():
        assert function.settings.__module__.startswith("selfie_adapters.config."), command


def test_no_command_declares_what_its_settings_have():
    fields = {flag.name for function in EVERY.values() for flag in walk(function.settings)}
    twice = [
        f"{command}: {parameter.name}"
        for command, function in EVERY.items()
        for parameter in own(function)
        if parameter.name in fields
    ]
    assert twice == []


def test_options_of_several_commands_are_one():
    for command, function in EVERY.items():
        for parameter in own(function):
            if parameter.name in SHARED:
                assert str(SHARED[parameter.name])[:-1] in str(parameter.annotation), command


def test_every_option_has_a_help_text_and_a_name_of_its_own():
    for command, function in EVERY.items():
        flags = [*walk(function.settings)]
        assert len({flag.flag for flag in flags}) == len(flags), command
        for flag in flags:
            assert re.match(r"--[a-z0-9-]+$", flag.flag)
