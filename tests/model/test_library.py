"""The one module that knows what the installed transformers can do."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from selfie_adapters.errors import ModelError
from selfie_adapters.model import library
from selfie_adapters.model.library import (
    cache_of,
    dequantize_options,
    forward,
    forward_arguments,
    kept_rows,
)
from tiny import FAMILIES, tiny_network

ROOT = Path(__file__).parents[2]
HIDDEN = torch.arange(24.0).view(2, 3, 4)
KEEP = torch.tensor([[True, False, False], [True, False, True]])


class OldModel(PreTrainedModel):
    def forward(self, input_ids=None, past_key_values=None, use_cache=None, logits_to_keep=0):
        return HIDDEN[:, logits_to_keep, :]


class NewModel(PreTrainedModel):
    def forward(self, input_ids=None, cache=None, use_cache=None, logits_to_keep=0):
        return slice_logits_to_keep(HIDDEN, logits_to_keep)


class StateModel(PreTrainedModel):
    def forward(self, input_ids=None, cache_params=None, use_cache=None):
        return HIDDEN


def slice_logits_to_keep(hidden, keep):
    return hidden[keep]


@pytest.mark.parametrize(
    ("kind", "cache", "keep"),
    [
        (OldModel, "past_key_values", torch.tensor([0, 2])),
        (NewModel, "cache", KEEP),
        (StateModel, "cache_params", None),
    ],
)
def test_arguments_have_the_names_and_forms_that_the_model_takes(kind, cache, keep):
    network, held = object.__new__(kind), object()
    found = forward_arguments(network, use_cache=True, cache=held, keep=KEEP, input_ids=HIDDEN)
    assert found.pop(cache) is held
    assert found.pop("input_ids") is HIDDEN
    assert found.pop("use_cache") is True
    assert (found.pop("logits_to_keep", None) is keep) if keep is None else True
    assert not found or torch.equal(found.pop("logits_to_keep"), keep)
    # Each returns another shape; the rows picked are the same.
    output = kind.forward(network, logits_to_keep=keep) if keep is not None else HIDDEN
    assert torch.equal(kept_rows(output, KEEP), HIDDEN[KEEP])


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_kept_logits_are_those_of_a_pass_that_keeps_all(family, rows, recwarn):
    network = tiny_network(family)
    ids = torch.randint(0, 256, (rows, 7), generator=torch.Generator().manual_seed(0))
    keep = torch.zeros(rows, 7, dtype=torch.bool)
    keep[0, 2] = keep[-1, 5] = keep[-1, 6] = True
    with torch.no_grad():
        every = forward(network, input_ids=ids, use_cache=False).logits
        cache = cache_of(forward(network, input_ids=ids[:, :2], use_cache=True, keep=1))
        found = forward(
            network, input_ids=ids[:, 2:], use_cache=True, cache=cache, keep=keep[:, 2:]
        )
    torch.testing.assert_close(kept_rows(found.logits, keep[:, 2:]), every[keep])
    assert cache_of(found) is cache
    assert not recwarn.list  # no argument is on its way out


def test_models_that_take_or_return_no_cache_are_an_error_that_says_so():
    class NoCache(PreTrainedModel):
        def forward(self, input_ids=None):
            return None

    with pytest.raises(ModelError, match="NoCache takes no cache"):
        forward_arguments(object.__new__(NoCache), use_cache=True, cache=object())
    with pytest.raises(ModelError, match="BaseModelOutput holds no cache"):
        cache_of(transformers.modeling_outputs.BaseModelOutput(last_hidden_state=HIDDEN))


def test_a_gguf_file_is_dequantized_with_and_without_a_class_for_it(monkeypatch):
    made = []
    known = SimpleNamespace(GgufConfig=lambda dequantize: made.append(dequantize) or "config")
    monkeypatch.setattr(library, "transformers", known)
    assert dequantize_options() == {"quantization_config": "config"}
    assert made == [True]
    monkeypatch.setattr(library, "transformers", SimpleNamespace())
    assert dequantize_options() == {}


def test_nothing_else_asks_for_versions_or_uses_names_that_changed():
    asks = re.compile(
        r"packaging\.version|\bVersion\(|transformers\.__version__ *[<>=!]|"
        r"past_key_values|cache_params|logits_to_keep|GgufConfig"
    )
    folders = ("src", "scripts", "benchmarks", "examples", "training", "evaluation", "data_prep")
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 100
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in files
        if file != Path(library.__file__)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if asks.search(line)
    ]
    assert found == []
