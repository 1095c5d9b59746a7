"""Measure an adapter on held-out labels, without training: what `--eval-only` does."""

from __future__ import annotations

from pathlib import Path

from selfie_adapters.adapters import find_adapter_file, load_adapter
from selfie_adapters.config import TrainConfig
from selfie_adapters.dataset import VectorLabelDataset
from selfie_adapters.errors import DataError
from selfie_adapters.model import FrozenModel
from selfie_adapters.training.ranks import joined_ranks
from selfie_adapters.training.run_folder import RunFolder
from selfie_adapters.training.setup import set_up
from selfie_adapters.training.validation import Validation


def measure(
    config: TrainConfig,
    adapter_file: str | Path | None = None,
    model: FrozenModel | None = None,
    dataset: VectorLabelDataset | None = None,
) -> tuple[Validation, str]:
    """Losses of an adapter and its controls on the configured validation set; writes nothing.

    adapter_file None takes the configured training.resume_from_checkpoint, or else the adapter at
    its initial values. Returns the losses and which adapter they are of. Raises like `train`;
    BindingError if the adapter was trained with another model or prompt.
    """
    source = adapter_file or config.training.resume_from_checkpoint
    with joined_ranks(config.model.device_map) as ranks:
        setup = set_up(config, model, dataset, ranks, training=False)
        adapter, what = setup.adapter, "the adapter at its initial values"
        if source is not None:
            file = find_adapter_file(source)
            adapter, what = load_adapter(file, setup.model.device), str(file)
            if adapter.binding is not None and setup.adapter.binding is not None:
                adapter.binding.check(setup.adapter.binding)
        found = setup.validator.measure(adapter)
    if found is None:
        raise DataError(f'{config.data.labels_file}: no vector has the split "val".')
    return found, what


def measure_run(
    folder: str | Path, model: FrozenModel | None = None, dataset: VectorLabelDataset | None = None
) -> tuple[Validation, str]:
    """`measure` for a run's best adapter (without one: its final, then its last)."""
    run = RunFolder(Path(folder))
    config = run.config()
    files = [run.adapter(which) for which in ("best", "final", "last")]
    file = next((file for file in files if file.exists()), None)
    return measure(config, file, model, dataset)
