"""What a command was given exists: checked at once, before anything large is loaded."""

from __future__ import annotations

from collections.abc import Sequence


def check_inputs(
    *,
    model: str | None = None,
    lora: str | None = None,
    device: str | dict[str, int | str] | None = None,
    adapters: Sequence[str | None] = (),
    files: Sequence[str | None] = (),
) -> None:
    """Check the device, the paths of model and LoRA, adapters, and other files.

    None means not given. Raises ModelError for a device that this machine lacks (it lists those it
    has) and for a path that is not a model or LoRA; MissingExtraError for a LoRA without peft;
    AdapterError; MissingFileError with the names nearest to it.
    """
    from selfie_adapters.adapters import find_adapter_file
    from selfie_adapters.files import existing_file

    if device is not None:
        from selfie_adapters.model.devices import resolve_device

        resolve_device(device)
    for adapter in adapters:
        if adapter is not None:
            find_adapter_file(adapter)
    for file in files:
        if file is not None:
            existing_file(file)
    if model is not None:
        from selfie_adapters.model.source import check_path

        check_path(model)
    if lora is not None:
        from selfie_adapters.model.lora import find_lora

        find_lora(lora)
