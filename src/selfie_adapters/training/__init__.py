"""Training: batches, the objective, the optimizer, the loop around them, and its run folder."""

from selfie_adapters.inference.label_loss import Objective, label_losses
from selfie_adapters.training.loop import resume, train
from selfie_adapters.training.validation import Validation, measure, measure_run

__all__ = [
    "Objective",
    "Validation",
    "label_losses",
    "measure",
    "measure_run",
    "resume",
    "train",
]
