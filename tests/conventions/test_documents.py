"""Documents that name files, commands, options and versions name those that exist."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import selfie_adapters

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/selfie_adapters"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def test_the_command_page_is_current():
    (pinned,) = re.findall(r"^cyclopts==(\S+)$", read("constraints.txt"), re.MULTILINE)
    page, made = read("docs/commands.md"), script("write_command_page").page()
    if metadata.version("cyclopts") != pinned:  # another layout; the same commands and options
        page, made = (
            sorted(set(re.findall(r"--[a-z][\w-]+|^## .*", x, re.M))) for x in (page, made)
        )
    assert page == made, "run: python scripts/write_command_page.py"


def test_architecture_names_existing_files_and_every_package():
    text = read("docs/architecture.md")
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:\.py|/))`", text)
    assert len(named) > 30
    for name in named:
        assert (PACKAGE / name).exists(), name
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= {name.rstrip("/") for name in named}


def test_architecture_lists_every_evaluation():
    protocols = {path.parent.name for path in PACKAGE.glob("evaluation/*/protocol.py")}
    named = re.findall(r"`evaluation/([a-z_]+)/protocol\.py`", read("docs/architecture.md"))
    assert set(named) == protocols


def test_the_api_page_has_every_public_name():
    page = read("docs/api.md")
    for name in selfie_adapters.__all__:
        assert re.search(rf"^::: \S*\b{name}$|`selfie_adapters\.{name}`", page, re.MULTILINE), name


def pages_of(nav: object) -> set[str]:
    if isinstance(nav, str):
        return {nav}
    parts = nav.values() if isinstance(nav, dict) else nav
    return set().union(*(pages_of(part) for part in parts))


def test_the_site_has_every_page():
    config = yaml.safe_load(read("mkdocs.yml"))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert pages_of(config["nav"]) == pages | set(script("docs_site").PAGES.values())


@pytest.mark.parametrize(
    ("page", "markdown", "expected"),
    [
        ("index.md", "[a](docs/formats.md#x)", "[a](formats.md#x)"),
        ("index.md", "![a [b]](docs/images/a.png)", "![a [b]](images/a.png)"),
        (
            "data.md",
            "[a](../docs/formats.md), [b](../CONTRIBUTING.md)",
            "[a](formats.md), [b](contributing.md)",
        ),
        (
            "scale.md",
            "[`x.sh`](../examples/x.sh) [x](../examples/x.sh)",
            "`x.sh` x (`examples/x.sh`)",
        ),
        (
            "scale.md",
            "[a](https://example.org/docs/a.md) [b](#here)",
            "[a](https://example.org/docs/a.md) [b](#here)",
        ),
    ],
)
def test_links_by_repository_path_become_the_sites(page, markdown, expected):
    assert script("docs_site").linked(markdown, page) == expected


def test_the_version_is_one():
    assert yaml.safe_load(read("CITATION.cff"))["version"] == VERSION
    assert re.search(rf"^## {re.escape(VERSION)}\b", read("CHANGELOG.md"), re.MULTILINE)


@pytest.mark.parametrize("name", ["AGENTS.md", "CONTRIBUTING.md"])
def test_guides_name_existing_files(name):
    paths = re.findall(r"`((?:src|tests|docs|scripts|\.ci)/[\w./-]+)`", read(name))
    paths += re.findall(r"(?:python|pytest) ([\w/]+\.py)", read(name))
    assert paths
    for path in paths:
        to_be_written = "NAME" in path or "/length" in path  # the example of an evaluation
        assert to_be_written or (ROOT / path).exists(), path


def test_repository_forms_are_valid():
    workflow = yaml.safe_load(read(".github/workflows/ci.yml"))
    assert any(step.get("run") == "bash .ci/run" for step in workflow["jobs"]["ci"]["steps"])
    for form in ("bug", "feature"):
        body = yaml.safe_load(read(f".github/ISSUE_TEMPLATE/{form}.yml"))["body"]
        assert all(part["attributes"]["label"] for part in body)
        assert len({part["id"] for part in body}) == len(body)
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format"]
