from __future__ import annotations

import pytest
import torch

from selfie_adapters.errors import ModelError
from selfie_adapters.model import FrozenModel, SharedPrefix, capture, load_model
from selfie_adapters.reading.plan import plan_reading
from tiny import D_MODEL, FAMILIES, LAYERS, golden_tokenizer, tiny_network
from tiny_folders import save_multimodal


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return FrozenModel(tiny_network(request.param), golden_tokenizer(), request.param)


def ids(*rows):
    return torch.tensor(rows)


def test_layer_l_is_the_output_of_block_l_before_any_final_norm(model):
    row = ids([256, 97, 98, 99, 100])
    hidden = model.network(input_ids=row, output_hidden_states=True).hidden_states
    found = capture(model, row, range(LAYERS))
    assert found.shape == (1, LAYERS, 5, D_MODEL)
    for layer in range(LAYERS - 1):  # hidden_states[0] is the embedding
        torch.testing.assert_close(found[:, layer], hidden[layer + 1])
    # the last entry is taken after the final norm; the block's own output is not
    last = found[:, -1]
    assert not torch.allclose(last, hidden[-1])
    norm = next(
        module
        for name, module in model.network.named_modules()
        if name.rsplit(".", 1)[-1] in ("norm", "final_layer_norm")
    )
    torch.testing.assert_close(norm(last), hidden[-1], rtol=1e-4, atol=1e-5)


def test_layers_come_in_the_order_asked_for_and_may_repeat(model):
    row = ids([256, 97, 98])
    every = capture(model, row, [0, 1, 2])
    found = capture(model, row, [2, 0, 2])
    torch.testing.assert_close(found, every[:, [2, 0, 2]])


def test_positions_are_per_row_and_padding_on_the_right_changes_nothing(model):
    batch = ids([256, 97, 98, 99], [256, 120, 259, 259])
    found = capture(model, batch, [1], positions=torch.tensor([3, 1]))
    alone = capture(model, ids([256, 120]), [1])[0, 0, -1]
    torch.testing.assert_close(found[1, 0], alone, rtol=1e-4, atol=1e-5)
    assert found.shape == (2, 1, D_MODEL)


def test_several_positions_a_row(model):
    row = ids([256, 97, 98, 99, 100])
    found = capture(model, row, [0, 2], positions=torch.tensor([[4, 1]]))
    assert found.shape == (1, 2, 2, D_MODEL)
    torch.testing.assert_close(found, capture(model, row, [0, 2])[:, :, [4, 1]])
    none = capture(model, row, [1], positions=torch.empty(1, 0, dtype=torch.int64))
    assert none.shape == (1, 1, 0, D_MODEL)


def test_a_shared_prefix_gives_the_same_vectors(model):
    row = ids([256, 97, 98, 99, 100, 101])
    prefix = SharedPrefix(model, (256, 97, 98))
    found = capture(model, row[:, 3:], [0, 2], torch.tensor([2]), cache=prefix.for_batch(1))
    torch.testing.assert_close(
        found[0], capture(model, row, [0, 2], torch.tensor([5]))[0], rtol=1e-4, atol=1e-5
    )


def test_blocks_after_the_last_layer_asked_for_do_not_run(model):
    ran = []
    handles = [
        block.register_forward_hook(lambda *_a, n=n: ran.append(n))
        for n, block in enumerate(model.blocks)
    ]
    capture(model, ids([256, 97]), [1])
    for handle in handles:
        handle.remove()
    assert 2 not in ran
    assert model.network(input_ids=ids([256, 97])).logits.isfinite().all()


@pytest.mark.parametrize("layer", [-1, LAYERS])
def test_a_layer_that_does_not_exist_is_refused(model, layer):
    with pytest.raises(ModelError, match=f"layer {layer}: the model has 3 blocks.*0 to 2"):
        capture(model, ids([256]), [layer])


def test_a_block_that_waits_for_an_image_has_no_output_for_text(tmp_path):
    model = load_model(save_multimodal(tmp_path / "m", "mllama"), "float32")
    for layers in ([0, 1], [1]):  # the second block attends to the image
        with pytest.raises(ModelError, match=r"skips block 1 for text alone.*Choose other layers"):
            capture(model, ids([256, 97, 98]), layers)
    assert capture(model, ids([256, 97, 98]), [0, 2, 3]).shape == (1, 3, 3, D_MODEL)
    assert plan_reading(model, "abc").layers == (0, 2, 3)  # all that can be read
    assert plan_reading(model, "abc", "1:3").layers == (1, 2)  # as asked; capture refuses it
