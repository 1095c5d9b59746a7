"""Optional dependencies: the table of extras, and errors that name what to install."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from selfie_adapters.errors import MissingExtraError
from selfie_adapters.extras import EXTRAS, extra, is_installed, module_folder, require_extra

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_the_table_holds_what_the_project_declares():
    declared = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(declared) == {*EXTRAS, "dev", "docs"}
    for name, modules in EXTRAS.items():
        packages = {re.split(r"[^\w-]", wish)[0] for wish in declared[name]}
        if "selfie-adapters" in packages:  # an extra that takes another one along
            packages |= {re.split(r"[^\w-]", wish)[0] for wish in declared["report"]}
        assert set(modules.values()) <= packages


def test_a_missing_module_is_named_with_its_package_and_extra(monkeypatch):
    require_extra("report", "This test")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    require_extra("report", "This test", "jinja2")
    message = r"This test needs the package matplotlib, which is not .*'selfie-adapters\[report\]'"
    with pytest.raises(MissingExtraError, match=message):
        require_extra("report", "This test")
    with pytest.raises(MissingExtraError, match=message), extra("report", "This test"):
        importlib.import_module("matplotlib")


def test_a_package_that_fails_to_import_is_told_from_one_that_is_missing(tmp_path, monkeypatch):
    (tmp_path / "vllm.py").write_text("import no_such_module_of_it")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    require_extra("vllm", "This test")
    with (
        pytest.raises(MissingExtraError, match=r"vllm, which fails to import .*no_such_module_of"),
        extra("vllm", "This test"),
    ):
        importlib.import_module("vllm")


def test_the_folder_of_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    (tmp_path / "sae_lens").mkdir()
    (tmp_path / "sae_lens" / "__init__.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sae_lens", raising=False)
    assert module_folder("sae_lens", "sae", "This test") == tmp_path / "sae_lens"
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    assert not is_installed("sae_lens")
    with pytest.raises(MissingExtraError, match="sae-lens"):
        module_folder("sae_lens", "sae", "This test")
