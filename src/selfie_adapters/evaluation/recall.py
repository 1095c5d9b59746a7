"""Is the right concept found among others? Recall at k from a square of scores."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def hits_at(scores: Tensor, k: int) -> np.ndarray:
    """Chance of each row's own column to be among its k best: scores [n, n] → [n] in [0, 1].

    Entry (i, i) is the right one; higher is better. Ties are broken at random and the chance is
    exact, so a score that is the same for every candidate gets k / n, not 1.
    """
    own = scores.diagonal().unsqueeze(1)
    better = (scores > own).sum(dim=1).cpu().numpy()
    tied = (scores == own).sum(dim=1).cpu().numpy()  # itself among them
    return np.clip((k - better) / tied, 0.0, 1.0)
