"""The prompt of a labelling run, and how the vectors were captured, against the adapter's."""

from __future__ import annotations

import logging

import pytest
import torch

from selfie_adapters.adapters import load_adapter
from selfie_adapters.config.labelling import LabelSettings
from selfie_adapters.dataset import Item, Section, save_dataset
from selfie_adapters.errors import BindingError
from selfie_adapters.labelling.inputs import open_source
from selfie_adapters.labelling.worker import ShardWorker
from selfie_adapters.model import SoftPrompt, bind, load_model

OWN = '<|begin_of_text|>"<|reserved_special_token_0|>" is "'


@pytest.fixture
def worker(golden_dir, tmp_path):
    model = load_model(golden_dir / "model", "float32")
    adapter = load_adapter(golden_dir / "adapters/scalar_affine_norm.safetensors")
    prompt = SoftPrompt.for_tokenizer(model.tokenizer).bind(model.tokenizer)
    captured = {"chat": "bare", "question": "Tell me about {}."}
    adapter.binding = bind(model, prompt, 1).model_copy(update=captured)
    metadata = {
        "dataset_name": "d",
        "filename": "d.safetensors",
        "layer": 1,
        "source": "test",
        "vector_type": "topic",
        "chat": "none",
        "question": "Tell me about {}.",
    }
    save_dataset(
        tmp_path / "d.json", [Section(metadata, torch.ones(2, 48), [Item(0, ["a"], "train")])]
    )

    def worker(layer=1, **options):
        adapter.binding = adapter.binding.model_copy(update={"layer": layer})
        adapter.save(tmp_path / "a.safetensors")
        settings = LabelSettings.checked(
            source=str(tmp_path / "d.json"),
            model=str(golden_dir / "model"),
            adapter=str(tmp_path / "a.safetensors"),
            dtype="float32",
            **options,
        )
        return ShardWorker(settings, open_source(settings))

    return worker


def test_vectors_captured_in_another_way_get_a_warning(worker, caplog):
    with caplog.at_level(logging.WARNING):
        worker()
    (message,) = [record.getMessage() for record in caplog.records]
    assert "d.json: chat format 'none', not 'bare' as in the adapter's training vectors" in message


def test_vectors_of_another_block_get_a_warning(worker, caplog):
    with caplog.at_level(logging.WARNING):
        worker(layer=0)
    last = caplog.records[-1].getMessage()
    assert last.endswith("d.json: block 1, not 0 as in the adapter's training vectors.")


def test_an_adapter_for_several_blocks_gets_none(worker, caplog):
    with caplog.at_level(logging.WARNING):
        worker(layer=None)
    assert not [one for one in caplog.records if ": block " in one.getMessage()]


def test_a_prompt_of_ones_own_is_used_and_checked(worker):
    with pytest.raises(BindingError, match="prompt template"):
        worker(template=OWN)
    own = worker(template=OWN, ignore_binding=True)
    assert own.labeller.prompt.prompt.template == OWN
    assert worker().labeller.prompt.prompt.template != OWN


def test_a_placeholder_of_ones_own_stands_in_the_adapters_prompt(worker):
    with pytest.raises(BindingError, match="placeholder token id"):
        worker(placeholder="~")
    own = worker(placeholder="~", ignore_binding=True).labeller.prompt
    assert own.prompt.template.count('"~"') == 2
    assert len(own.sites) == 2


def test_a_confidence_holds_for_its_own_prompt_only():
    of_adapter = LabelSettings.checked(source="v", model="m").way_of_drawing()
    of_own = LabelSettings.checked(source="v", model="m", template=OWN).way_of_drawing()
    assert of_adapter["template"] is None
    assert of_own["template"] == OWN
