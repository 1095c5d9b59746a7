"""`import selfie_adapters`: which names it offers, how they load, how its objects print."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

import selfie_adapters
from selfie_adapters import (
    Item,
    Labeller,
    Section,
    VectorLabelDataset,
    create_adapter,
    load_model,
)

PACKAGE = Path(selfie_adapters.__file__).parent
PROMISED = {
    *("Adapter", "create_adapter", "load_adapter"),
    *("FrozenModel", "SoftPrompt", "capture", "load_model"),
    *("Item", "Section", "VectorLabelDataset", "load_dataset", "save_dataset"),
    *("Label", "Labeller", "Sampling", "Reading", "read_prompt"),
    *("TrainConfig", "label_losses", "train"),
    *("SelfieError", "__version__"),
}


def test_dir_lists_the_public_names_and_nothing_else():
    assert set(dir(selfie_adapters)) == set(selfie_adapters.__all__) == PROMISED
    assert list(selfie_adapters.__all__) == sorted(selfie_adapters.__all__)


def test_importing_and_dir_load_no_torch():
    code = (
        "import sys, selfie_adapters; dir(selfie_adapters); selfie_adapters.__version__; "
        "print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", sorted(PROMISED - {"__version__"}))
def test_each_name_is_the_one_that_type_checkers_see(name):
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    (module,) = {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}
    }
    assert getattr(selfie_adapters, name) is getattr(import_module(module), name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = selfie_adapters.nothing_like_it


def test_the_package_states_that_it_is_typed():
    assert (PACKAGE / "py.typed").read_bytes() == b""


def test_objects_print_on_one_line(golden_dir):
    vectors = torch.ones(1000, 32, dtype=torch.bfloat16)
    items = [Item(index, ["a label"] * 50, "train") for index in range(1000)]
    section = Section({"dataset_name": "topics", "layer": 12}, vectors, items)
    assert repr(section) == "Section(topics@l12, vectors [1000, 32] bfloat16, 1000 labeled)"
    dataset = VectorLabelDataset([section] * 7)
    shown = ", ".join([repr(section)] * 5)
    assert repr(dataset) == f"VectorLabelDataset([{shown}, and 2 more])"
    assert repr(dataset.examples("train")) == "Examples(350000 pairs of vector and label)"
    adapter = create_adapter("low_rank_only", dim=32, low_rank_rank=4)
    assert repr(adapter) == "LowRankOnly(dim=32, low_rank_rank=4, normalize_input=True)"
    assert "rank" not in repr(create_adapter("scalar_affine", dim=32))
    model = load_model(golden_dir / "model", dtype="float32")
    name = str(golden_dir / "model")
    assert repr(model) == f"FrozenModel({name!r}, 3 layers, d_model 48, float32 on cpu)"
    labeller = Labeller(model, create_adapter("identity", dim=48))
    adapter_shown = "Identity(dim=48, normalize_input=True)"
    assert repr(labeller) == f"Labeller({model!r}, {adapter_shown})"
