"""A set of adapters: one general file and specialists beside it."""

from __future__ import annotations

import pytest
import torch

from selfie_adapters.adapters import create_adapter, load_adapter
from selfie_adapters.adapters.locating import find_adapter_file
from selfie_adapters.adapters.specialists import adapter_digest, specialist_file, specialist_files
from selfie_adapters.errors import AdapterError
from selfie_adapters.labelling import Labeller
from selfie_adapters.model import SoftPrompt, bind
from selfie_adapters.reading.plan import plan_reading
from selfie_adapters.reading.read import read_cells

WIDTH = 16


def affine(scale: float, width: int = WIDTH):
    return create_adapter("scalar_affine", width, init_scale=scale)


@pytest.fixture
def folder(tmp_path):
    affine(1.0).save(tmp_path / "set.safetensors")
    affine(2.0).save(specialist_file(tmp_path / "set.safetensors", 1, "-1"))
    affine(3.0).save(specialist_file(tmp_path / "set.safetensors", 12, "name"))
    return tmp_path


def scale_of(adapter) -> float:
    return round(float(adapter.scale()), 4)


def test_each_place_has_its_adapter(folder):
    adapter = load_adapter(folder / "set.safetensors")
    assert scale_of(adapter) == 1.0
    assert scale_of(adapter.at(1, "-1")) == 2.0
    assert scale_of(adapter.at(12, "name")) == 3.0
    for place in ((1, "name"), (12, "-1"), (2, "-1"), (None, "-1"), (1, None)):
        assert adapter.at(*place) is adapter


def test_the_folder_is_one_adapter_and_each_file_is_one_by_itself(folder):
    assert find_adapter_file(folder) == folder / "set.safetensors"
    alone = load_adapter(folder / "set.layer_1_at_-1.safetensors")
    assert scale_of(alone) == 2.0
    assert not alone.specialists


def test_only_files_of_this_adapter_belong_to_it(folder):
    affine(4.0).save(folder / "other.safetensors")
    affine(5.0).save(folder / "other.layer_3_at_name.safetensors")
    affine(6.0).save(folder / "set.layer_x_at_name.safetensors")
    affine(6.0).save(folder / "set.layer_3_at_name.pt")
    assert list(specialist_files(folder / "set.safetensors")) == [(1, "-1"), (12, "name")]
    assert list(specialist_files(folder / "other.safetensors")) == [(3, "name")]


def test_a_specialist_of_another_width_is_refused(folder):
    affine(1.0, 8).save(folder / "set.layer_5_at_name.safetensors")
    with pytest.raises(AdapterError, match=r"set\.layer_5_at_name.*width 8.*width 16"):
        load_adapter(folder / "set.safetensors")


def test_the_digest_covers_all_files(folder):
    file = folder / "set.safetensors"
    before = adapter_digest(file)
    affine(2.5).save(folder / "set.layer_1_at_-1.safetensors")
    changed = adapter_digest(file)
    specialist_file(file, 1, "-1").unlink()
    assert len({before, changed, adapter_digest(file)}) == 3


def test_without_specialists_the_digest_is_the_file_s(tmp_path):
    import hashlib

    affine(1.0).save(tmp_path / "one.safetensors")
    content = (tmp_path / "one.safetensors").read_bytes()
    assert adapter_digest(tmp_path / "one.safetensors") == hashlib.sha256(content).hexdigest()


def test_a_specialist_of_another_place_is_refused(model, tmp_path):
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    width = model.d_model

    def save(name: str, layer: int | None, position: int | str | None) -> None:
        adapter = affine(1.0, width)
        bound = bind(model, prompt.bind(model.tokenizer), layer)
        adapter.binding = bound.model_copy(update={"position": position})
        adapter.save(tmp_path / name)

    save("set.safetensors", None, None)
    save("set.layer_1_at_-1.safetensors", 1, -1)
    assert list(load_adapter(tmp_path / "set.safetensors").specialists) == [(1, "-1")]
    save("set.layer_1_at_-1.safetensors", 0, -1)
    with pytest.raises(AdapterError, match=r"states block 1, position -1.*block 0, position -1"):
        load_adapter(tmp_path / "set.safetensors")


@pytest.fixture
def labellers(model):
    """A set, and its parts alone."""
    width = model.d_model
    torch.manual_seed(0)
    general, special = (create_adapter("full_rank", width, init_scale=2.0) for _ in range(2))
    for adapter in (general, special):
        adapter.bias.data.normal_()
        adapter.weight.data.normal_()
    alone = Labeller(model, general.eval()), Labeller(model, special.eval())
    both = create_adapter("full_rank", width, init_scale=2.0).eval()
    both.load_state_dict(general.state_dict())
    both.specialists[1, "-1"] = special
    return Labeller(model, both), *alone


def test_labels_and_gains_are_those_of_each_place_s_adapter(labellers):
    both, general, special = labellers
    vectors = torch.randn(6, both.model.d_model, generator=torch.Generator().manual_seed(1))
    places = [(1, "-1"), (0, "-1"), (1, "name"), (1, "-1"), (None, None), (1, "-1")]
    found = both.label(vectors, (1.0, 2.0), max_new_tokens=4, places=places)
    ours, theirs = (one.label(vectors, (1.0, 2.0), max_new_tokens=4) for one in (general, special))
    for number, place in enumerate(places):
        expected = (theirs if place == (1, "-1") else ours)[number]
        for label, other in zip(found[number], expected, strict=True):
            assert label.text == other.text
            assert label.gain == pytest.approx(other.gain, abs=1e-4)
    moved = both.rescore([one[0] for one in found], vectors, places)
    assert [one.log_prob for one in moved] == pytest.approx(
        [one[0].log_prob for one in found], abs=1e-3
    )


def test_a_reading_takes_the_specialist_at_its_tokens(labellers):
    both, general, special = labellers
    plan = plan_reading(both.model, "some words to read", [0, 1], None, "none")
    last = len(plan.tokens) - 1

    def read(labeller) -> dict:
        cells = [cell for batch in read_cells(labeller, plan) for cell in batch]
        return {(cell.layer, cell.position): cell for cell in cells}

    ours, one, other = read(both), read(general), read(special)
    assert ours[1, last].log_prob == pytest.approx(other[1, last].log_prob, abs=1e-4)
    for place in ours.keys() - {(1, last)}:
        assert ours[place].log_prob == pytest.approx(one[place].log_prob, abs=1e-4)
    assert one[1, last].log_prob != pytest.approx(other[1, last].log_prob, abs=1e-2)


def test_a_specialist_keeps_its_own_question(model, golden_dir):
    plain = SoftPrompt.for_tokenizer(model.tokenizer)
    other = SoftPrompt(plain.template.replace("meaning", "sense"), plain.placeholder, plain.end)
    assert other != plain
    general, special = (create_adapter("scale_only", model.d_model, init_scale=3.0) for _ in "ab")
    general.binding = bind(model, plain.bind(model.tokenizer), None)
    special.binding = bind(model, other.bind(model.tokenizer), 1)
    general.specialists[1, "-1"] = special.eval()
    both = Labeller(model, general.eval())
    vectors = torch.randn(3, model.d_model, generator=torch.Generator().manual_seed(0))
    found = both.label(vectors, max_new_tokens=4, places=[(1, "-1")] * 3)
    alone = Labeller(model, special).label(vectors, max_new_tokens=4)
    assert [one[0].log_prob for one in found] == [one[0].log_prob for one in alone]
    assert both.at(1, "-1").prompt.prompt == other
    chosen = Labeller(model, general, SoftPrompt(plain.template + " ", plain.placeholder), False)
    assert chosen.at(1, "-1").prompt.prompt == chosen.prompt.prompt


def test_adapters_that_ask_the_same_question_share_its_passes(labellers):
    both, general, _ = labellers
    vectors = torch.randn(3, both.model.d_model, generator=torch.Generator().manual_seed(2))
    passes: list[int] = []
    handle = both.model.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    try:
        general.label(vectors, max_new_tokens=1)
        one_adapter = len(passes)
        both.label(vectors, max_new_tokens=1, places=[(1, "-1"), (0, "-1"), (1, "-1")])
    finally:
        handle.remove()
    assert len(passes) == 2 * one_adapter
