"""One name, one type: a reader who searches for a class or a type alias finds one."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src/selfie_adapters"
_TYPE_NAME = re.compile(r"_?[A-Z]\w*[a-z]\w*")  # CONSTANTS have no lower-case letter


def type_names(module: ast.Module) -> Iterator[str]:
    """Classes anywhere, and aliases of types at the top of a module.

    Type variables are omitted: one means nothing outside its module.
    """
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            yield node.name
    for node in module.body:
        if isinstance(node, ast.Assign) and not ast.unparse(node.value).startswith("TypeVar("):
            for target in node.targets:
                if isinstance(target, ast.Name) and _TYPE_NAME.fullmatch(target.id):
                    yield target.id


def definitions(modules: Mapping[str, ast.Module]) -> dict[str, list[str]]:
    """Names of types → the modules that define them, once per definition."""
    found: dict[str, list[str]] = defaultdict(list)
    for file, module in modules.items():
        for name in type_names(module):
            found[name].append(file)
    return found


def used_twice(found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {name: files for name, files in found.items() if len(files) > 1}


def test_no_two_types_have_one_name():
    files = SOURCE.rglob("*.py")
    found = definitions(
        {str(one.relative_to(SOURCE)): ast.parse(one.read_bytes()) for one in files}
    )
    assert len(found) > 200
    assert {"Condition", "Verdict", "NaturalNumber", "StepProgress"} <= found.keys()
    assert used_twice(found) == {}


def test_a_name_used_twice_is_found():
    modules = {
        "a.py": ast.parse("class Row: ...\nKind = Literal['a']\nT = TypeVar('T')\nLIMIT = 1"),
        "b.py": ast.parse(
            "def f():\n    class Kind: ...\nRow = A | B\nT = TypeVar('T')\nLIMIT = 2"
        ),
    }
    expected = {"Row": ["a.py", "b.py"], "Kind": ["a.py", "b.py"]}
    assert used_twice(definitions(modules)) == expected
