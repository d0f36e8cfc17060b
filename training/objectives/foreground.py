"""`objective.foreground`: trains the predicted foreground (`training.layers.foreground`) with masks.

The cross-entropy of the masks under the prediction, summed over its cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def foreground_nats(logits: Tensor, mask: Tensor, *, shrunk: float = 1.0) -> Tensor:
    """Cross-entropy of masks under a prediction in nats per image, over the images with a mask; 0 if none has one.

    Args:
        logits: `(B, 1, h, w)`.
        mask: `(B, 1, S, S)` in [0, 1]; NaN in images without one.
        shrunk: number of cells for a full-size image divided by h w, which each cell is weighted by.
    """
    known = ~mask.isnan().flatten(1).any(dim=1)
    cells = nn.functional.adaptive_avg_pool2d(mask.nan_to_num(), (logits.shape[2], logits.shape[3]))
    nats = nn.functional.binary_cross_entropy_with_logits(logits.to(cells.dtype), cells, reduction="none").sum(
        dim=(1, 2, 3)
    )
    return shrunk * torch.where(known, nats, 0.0).sum() / known.sum().clamp(min=1)
