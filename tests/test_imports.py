"""What importing the model libraries costs that is not the work of importing."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import transformers
from transformers.utils import import_utils

from selfie_adapters import imports
from selfie_adapters.imports import own_process, without_collection
from selfie_adapters.model.scan_once import shared

_MODELS = Path(transformers.__file__).parent / "models"

# Printed: files of transformers' models and how often each was opened as text; full collections.
_WATCHED = f"""
import gc, sys
opened = []
models = {str(_MODELS)!r}
def watch(event, arguments):
    if event == "open" and arguments[1] == "r" and str(arguments[0]).startswith(models):
        opened.append(str(arguments[0]))
sys.addaudithook(watch)
import torch
before = gc.get_stats()[2]["collections"]
import selfie_adapters.model
print(gc.get_stats()[2]["collections"] - before, gc.isenabled(), gc.get_freeze_count(), *opened)
"""


def test_the_model_package_scans_the_files_of_transformers_once_and_collects_nothing():
    command = [sys.executable, "-c", _WATCHED]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert printed[:3] == ["0", "True", "0"]
    counts = Counter(printed[3:])
    assert len(counts) > 500
    # A model's own package scans its folder again when it is imported: few are.
    assert sum(counts.values()) < 1.1 * len(counts)


def test_the_shared_table_is_the_one_that_a_scan_of_its_own_makes():
    file = str(_MODELS / "__init__.py")
    scan = import_utils.define_import_structure
    expected = {needs: modules for needs, modules in scan(file).items() if modules}
    found = shared(scan, _MODELS)(file)
    assert {needs: modules for needs, modules in found.items() if modules} == expected
    assert "llama.modeling_llama" in found[frozenset({"torch"})]


def test_other_packages_are_scanned_as_before():
    asked = []

    def scan(file, prefix=None):
        asked.append((file, prefix))
        return {frozenset(): {"auto.configuration_auto": {"AutoConfig"}}}

    define = shared(scan, Path("/t/models"))
    define("/t/models/auto/__init__.py")
    define("/t/models/__init__.py", prefix="x")
    assert asked == [("/t/models/auto/__init__.py", None), ("/t/models/__init__.py", "x")]


@pytest.mark.parametrize("own", [False, True])
def test_collection_is_paused_and_goes_on_even_after_an_error(own, monkeypatch):
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    monkeypatch.setattr(imports._Process, "own", False)
    if own:
        own_process()
    with without_collection():
        assert not gc.isenabled()
        with without_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    assert len(frozen) == own
    with pytest.raises(ImportError), without_collection():
        raise ImportError
    assert gc.isenabled()


def test_who_has_switched_collection_off_finds_it_off():
    gc.disable()
    try:
        with without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
