from __future__ import annotations

import torch

from selfie_adapters.model import FrozenModel, fingerprint
from selfie_adapters.model.fingerprint import weights_digest
from tiny import golden_tokenizer, tiny_network


def tiny_model(seed: int = 0) -> FrozenModel:
    return FrozenModel(tiny_network("llama", seed), golden_tokenizer(), "tiny")


def test_equal_weights_have_equal_digests_and_any_changed_weight_changes_it():
    model = tiny_model()
    before = weights_digest(model)
    assert weights_digest(tiny_model()) == before
    assert weights_digest(tiny_model(seed=1)) != before
    for _, weight in model.network.named_parameters():
        flat = weight.data.view(-1)
        for index in (0, len(flat) // 2, len(flat) - 1):
            kept = flat[index].item()
            flat[index] = torch.nextafter(flat[index], torch.tensor(9.0))  # the last bit alone
            assert weights_digest(model) != before
            flat[index] = kept
    assert weights_digest(model) == before


def test_two_weights_that_change_places_change_the_digest():
    model = tiny_model()
    before = weights_digest(model)
    weight = next(model.network.parameters()).data
    weight[[0, 1]] = weight[[1, 0]]
    assert weights_digest(model) != before


def test_the_digest_does_not_depend_on_how_a_tensor_is_stored_or_summed(monkeypatch):
    values = torch.randn(37, 5, dtype=torch.bfloat16)  # 370 bytes: not a number of words
    whole = fingerprint._checksum(values)
    assert fingerprint._checksum(values.T.contiguous().T) == whole
    assert fingerprint._checksum(torch.cat([values[:1], values])[1:]) == whole
    monkeypatch.setattr(fingerprint, "_CHUNK", 64)
    assert fingerprint._checksum(values) == whole
    words = [
        int.from_bytes(part, "little", signed=True)
        for part in _words(values.view(torch.uint8).numpy().tobytes())
    ]
    assert whole == sum((2 * i + 1) * word for i, word in enumerate(words)) % 2**64


def test_other_dtypes_have_other_digests():
    model = tiny_model()
    before = weights_digest(model)
    model.network.to(torch.bfloat16)
    assert weights_digest(model) != before


def _words(data: bytes) -> list[bytes]:
    return [data[i : i + 8].ljust(8, b"\0") for i in range(0, len(data), 8)]
