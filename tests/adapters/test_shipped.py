from __future__ import annotations

import pytest

from selfie_adapters.adapters import create_adapter, find_adapter_file, load_adapter, locating
from selfie_adapters.adapters.locating import (
    concepts_beside,
    find_mean_file,
    mean_beside,
    shipped,
    shipped_concepts,
    usual_adapter,
)
from selfie_adapters.errors import MissingFileError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package folder that ships one adapter with its means."""
    folder = tmp_path / "package/shipped"
    folder.mkdir(parents=True)
    create_adapter("scalar_affine", 4, init_scale=3.0).save(folder / "tiny.safetensors")
    (folder / "tiny.mean.safetensors").write_bytes(b"")
    monkeypatch.setattr(locating, "package_files", lambda _name: tmp_path / "package")
    return folder


def test_a_shipped_adapter_goes_by_its_name(package):
    assert list(shipped()) == ["tiny"]
    assert find_adapter_file("tiny") == package / "tiny.safetensors"
    assert load_adapter("tiny").get_metadata()["config"]["projection"]["type"] == "scalar_affine"
    assert mean_beside(find_adapter_file("tiny")).exists()


def test_vectors_for_a_first_look_are_its_own_or_those_of_the_set(package):
    set_s = package / "concepts.json"
    assert shipped_concepts() == shipped_concepts("tiny") == shipped_concepts("mine.pt") == set_s
    own = concepts_beside(package / "tiny.safetensors")
    own.write_text("[]", encoding="utf-8")
    create_adapter("scale_only", 4).save(own.with_suffix(".safetensors"))
    assert shipped_concepts("tiny") == own
    assert shipped_concepts() == set_s
    assert list(shipped()) == ["tiny"]  # its vectors are no adapter


def test_its_name_wins_over_a_folder_which_is_reached_by_a_path(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    create_adapter("scale_only", 4, init_scale=3.0).save(tmp_path / "tiny/own.safetensors")
    assert find_adapter_file("tiny") == package / "tiny.safetensors"
    assert find_adapter_file("./tiny").name == "own.safetensors"


def test_other_names_are_files(package):
    with pytest.raises(MissingFileError, match=r'tinny: no such file, .* Did you mean "tiny"\?'):
        find_adapter_file("tinny")
    with pytest.raises(MissingFileError, match=r"tinny\.pt: no such file\."):
        find_adapter_file("tinny.pt")


def test_which_adapter_a_command_runs_with():
    assert usual_adapter(None, "demo") == "demo"
    assert usual_adapter(None, "some/model") is None
    assert usual_adapter("none", "demo") is None
    assert usual_adapter("mine.pt", "demo") == "mine.pt"


def test_which_means_go_with_an_adapter(package, tmp_path):
    alone = tmp_path / "alone.safetensors"
    own = package / "tiny.safetensors"
    assert find_mean_file(None, own) == str(package / "tiny.mean.safetensors")
    assert find_mean_file(None, alone) is None
    assert find_mean_file(None, None) is None
    assert find_mean_file("tiny", alone) == str(package / "tiny.mean.safetensors")
    assert find_mean_file("other.pt", own) == "other.pt"
