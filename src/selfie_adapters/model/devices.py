"""Which device a model goes to: a name or device map, checked against what this machine has."""

from __future__ import annotations

import torch

from selfie_adapters.errors import ModelError

DeviceMap = str | dict[str, int | str]

# Strategies of transformers (accelerate) that place one model on several devices.
SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")


def available_devices() -> list[str]:
    """Devices of this machine as torch names them: cpu, then for example cuda:0, cuda:1, or mps."""
    if not torch.accelerator.is_available():
        return ["cpu"]
    accelerator = torch.accelerator.current_accelerator()
    kind = accelerator.type if accelerator is not None else "cuda"
    if kind == "mps":  # there is only one, and torch names it without a number
        return ["cpu", "mps"]
    return ["cpu", *(f"{kind}:{i}" for i in range(torch.accelerator.device_count()))]


def resolve_device(device: DeviceMap | None) -> DeviceMap:
    """What transformers takes as `device_map`.

    device: "cpu", "cuda", "cuda:N", "mps", "auto" (one model spread over all devices), or a map
    from module names to devices. None is the first CUDA device, else the CPU.
    Raises ModelError for a device that this machine does not have; it lists those it has.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if isinstance(device, dict):
        for module, place in device.items():
            if place != "disk":
                _check(place, f'device of "{module}"')
        return device
    if device in SPREAD:
        # Without an accelerator there is nothing to spread over, and the CPU has its own defaults.
        return device if torch.accelerator.is_available() else "cpu"
    _check(device, "device")
    return device


def is_cpu(device: DeviceMap) -> bool:
    """Whether all of the model is on the CPU."""
    if isinstance(device, dict):
        return set(device.values()) == {"cpu"}
    return device == "cpu"


def _check(device: int | str, what: str) -> None:
    available = available_devices()
    kinds = {name.partition(":")[0] for name in available}
    named = f"cuda:{device}" if isinstance(device, int) else device
    if named in available or named in kinds:
        return
    raise ModelError(
        f'{what} "{device}" is not available. This machine has: {", ".join(available)}. '
        'Choose one of them, or "auto" to spread one model over all of them.'
    )
