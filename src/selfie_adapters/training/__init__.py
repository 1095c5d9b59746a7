"""Training: batches, the objective, the optimizer, and the loop around them."""

from selfie_adapters.training.loop import train
from selfie_adapters.training.objective import Objective, label_losses

__all__ = ["Objective", "label_losses", "train"]
