"""No module imports itself through others: what `make lint` checks besides the layers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import selfie_adapters

PACKAGE = Path(selfie_adapters.__file__).parent


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def executed_on_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported: none in functions or for type checkers."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from executed_on_import(node.orelse)
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            yield from executed_on_import(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from executed_on_import(handler.body)


def import_graph(package: Path) -> dict[str, set[str]]:
    """Modules of the package, and those of it that each imports when it is imported."""
    paths = {module_name(path, package): path for path in package.rglob("*.py")}
    graph: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        for node in executed_on_import(ast.parse(path.read_text("utf-8")).body):
            targets: set[str] = set()
            if isinstance(node, ast.Import):
                targets = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                submodules = {f"{node.module}.{alias.name}" for alias in node.names}
                others = {one for one in submodules if one not in paths}
                targets = (submodules - others) | ({node.module or ""} if others else set())
            graph[name] |= {target for target in targets if target in paths} - {name}
    return graph


def find_cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """A chain of modules that ends where it began, or None."""
    done: set[str] = set()

    def visit(name: str, chain: list[str]) -> list[str] | None:
        if name in chain:
            return [*chain[chain.index(name) :], name]
        if name in done:
            return None
        for target in sorted(graph[name]):
            if (cycle := visit(target, [*chain, name])) is not None:
                return cycle
        done.add(name)
        return None

    return next((cycle for name in sorted(graph) if (cycle := visit(name, []))), None)


def test_no_module_imports_itself_through_others():
    graph = import_graph(PACKAGE)
    assert len(graph) > 100
    assert find_cycle(graph) is None


@pytest.mark.parametrize(
    ("files", "cycle"),
    [
        ({"a": "import p.b", "b": "from p.c import x", "c": "from p import a"}, ["a", "b", "c"]),
        ({"a": "import p.b", "b": "def f():\n    import p.a"}, None),
        ({"a": "import p.b", "b": "if TYPE_CHECKING:\n    import p.a"}, None),
        (
            {"a": "import p.b", "b": "try:\n    import p.a\nexcept ImportError:\n    pass"},
            ["a", "b"],
        ),
        ({"a": "class A:\n    import p.b", "b": "from p.a import A"}, ["a", "b"]),
    ],
)
def test_cycles_are_found(tmp_path, files, cycle):
    package = tmp_path / "p"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    found = find_cycle(import_graph(package))
    assert found == (None if cycle is None else [f"p.{name}" for name in [*cycle, cycle[0]]])
