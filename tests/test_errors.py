from __future__ import annotations

import pickle

import pytest

from selfie_adapters import errors
from selfie_adapters.errors import MissingExtraError, MissingFileError, SelfieError, nearest

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, SelfieError) and value is not SelfieError
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_also_one_of_the_standard_library(kind):
    standard = [base for base in kind.__mro__ if base.__module__ == "builtins"]
    assert standard[0] not in (Exception, BaseException, object)


def test_a_missing_file_says_its_message_and_nothing_more():
    assert str(MissingFileError("x.json: no such file.")) == "x.json: no such file."


def test_a_missing_extra_names_the_install_command_even_across_processes():
    error = MissingExtraError("sae-lens", "sae", "Preparing an SAE")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(error, ImportError)
    assert "pip install 'selfie-adapters[sae]'" in str(error)
    assert str(again) == str(error)


def test_the_nearest_choice_or_else_a_list():
    assert nearest("scalr_affine", ["identity", "scalar_affine"]) == (
        'Did you mean "scalar_affine"?'
    )
    assert nearest("zzz", ["a", "b"]) == "Valid choices: a, b."
    many = nearest("zzz", [f"choice{i}" for i in range(20)])
    assert "choice11, …" in many
    assert "choice12" not in many
