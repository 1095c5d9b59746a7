from importlib import metadata

import pytest

import selfie_adapters
from selfie_adapters import extras
from selfie_adapters.cli import main


def absent(package):
    raise metadata.PackageNotFoundError(package)


def test_the_version_is_the_package_metadata():
    assert selfie_adapters.__version__ == metadata.version("selfie-adapters")


def test_a_source_tree_that_is_not_installed_has_a_version_too(monkeypatch, capsys):
    version = selfie_adapters.__version__
    monkeypatch.setattr(extras.metadata, "version", absent)
    assert selfie_adapters.__version__ == version
    assert extras.versions(("selfie-adapters", "torch")) == {"selfie-adapters": version}
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.strip() == version


def test_without_a_project_file_the_version_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(extras.metadata, "version", absent)
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "a/b/extras.py"))
    assert selfie_adapters.__version__ == "unknown"
