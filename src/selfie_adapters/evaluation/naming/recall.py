"""Is the right concept found among others? Recall at k from scores."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def hits_at(scores: Tensor, k: int, right: Tensor | None = None) -> np.ndarray:
    """Chance of each row's own column to be among its k best: scores [n, m] → [n] in [0, 1].

    right: [n], each row's own column; None: entry (i, i). Higher is better. Ties are broken at
    random and the chance is exact, so a score that is the same for every candidate gets k / m.
    """
    right = torch.arange(len(scores)) if right is None else right
    own = scores.gather(1, right.to(scores.device).unsqueeze(1))
    better = (scores > own).sum(dim=1).cpu().numpy()
    tied = (scores == own).sum(dim=1).cpu().numpy()  # itself among them
    return np.clip((k - better) / tied, 0.0, 1.0)
