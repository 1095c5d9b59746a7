from __future__ import annotations

import pytest
import torch

from selfie_adapters.errors import ModelError
from selfie_adapters.model import load_model
from selfie_adapters.model.devices import available_devices, is_cpu, resolve_device


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_devices_of_a_machine_with_two_gpus(two_gpus):
    assert available_devices() == ["cpu", "cuda:0", "cuda:1"]
    for name in ("cpu", "cuda", "cuda:1", "auto", "balanced"):
        assert resolve_device(name) == name
    assert resolve_device(None) == "cuda"
    assert resolve_device({"model": 1, "lm_head": "cpu", "rest": "disk"})
    for device in ("cuda:2", "mps", "gpu", {"": 2}, {"": "cuda:7"}):
        with pytest.raises(ModelError, match=r"not available.*has: cpu, cuda:0, cuda:1"):
            resolve_device(device)


def test_devices_of_a_machine_without(no_gpu):
    assert available_devices() == ["cpu"]
    assert resolve_device(None) == resolve_device("auto") == resolve_device("cpu") == "cpu"
    with pytest.raises(ModelError, match=r'device "cuda:0" is not available.*has: cpu\.'):
        resolve_device("cuda:0")


def test_mps_has_no_number(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    assert available_devices() == ["cpu", "mps"]
    assert resolve_device("mps") == "mps"


@pytest.mark.parametrize(
    ("device", "cpu"), [("cpu", True), ("cuda", False), ({"": "cpu"}, True), ({"": 0}, False)]
)
def test_what_is_all_on_the_cpu(device, cpu):
    assert is_cpu(device) is cpu


def test_an_unavailable_device_is_an_error_before_anything_is_read(no_gpu):
    with pytest.raises(ModelError, match="not available"):
        load_model("owner/no-such-model", device_map="cuda:3")
