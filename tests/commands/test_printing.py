"""What commands print: strings from outside are shown as they are, and cannot steer a terminal."""

from __future__ import annotations

import io
import json

from rich.console import Console

from selfie_adapters.commands.eval_running import print_report
from selfie_adapters.commands.printing import print_json, print_line, print_table
from selfie_adapters.evaluation.tables import Table


def printed(width: int = 80) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width), out


def test_markup_and_control_characters_of_strings_are_shown():
    console, out = printed()
    print_line("[bold]a\x1b[31m", console)
    print_table(["name"], [["[red]b\x07"]], "[i]title", console)
    assert out.getvalue().startswith("[bold]a\\x1b[31m\n")
    assert "[red]b\\x07" in out.getvalue()
    assert "[i]title" in out.getvalue()


def test_a_line_is_not_cut_at_the_width():
    console, out = printed(width=20)
    print_line("/a/path/that/is/longer/than/the/terminal", console)
    assert out.getvalue() == "/a/path/that/is/longer/than/the/terminal\n"


def test_a_table_without_rows_states_it():
    console, out = printed()
    print_table(["run"], [], None, console)
    assert out.getvalue().splitlines()[-1].strip() == "none"


def test_json_is_one_value_per_line(capsys):
    print_json([{"a": "é\u202e"}, 1])
    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first) == {"a": "é\u202e"}
    assert "\u202e" not in first
    assert second == "1"


def test_numbers_of_a_report_are_at_the_right():
    console, out = printed()
    print_report(console, Table("", ["kind", "loss"], [["a", "1"], ["b", "12345"]]))
    (line,) = [line for line in out.getvalue().splitlines() if " a " in line]
    assert line.index("1") > line.index("a") + 4
    print_report(console, "a line")
    assert out.getvalue().endswith("a line\n")
