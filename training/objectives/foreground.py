"""`objective.foreground`: the guess of which pixels are the item's (`training.layers.foreground`) learns from masks.

The cross-entropy of the masks under the guess, summed over its cells.
"""

from __future__ import annotations

from torch import Tensor, nn


def foreground_nats(logits: Tensor, mask: Tensor, *, shrunk: float = 1.0) -> Tensor:
    """Cross-entropy of masks under a guess, in nats per image of those with a mask; 0 where none has one.

    Args:
        logits: `(B, 1, h, w)`.
        mask: `(B, 1, S, S)` in [0, 1]; NaN in images without one.
        shrunk: how many times as many cells the guess has of a picture of full size; each cell counts for so many.
    """
    known = ~mask.isnan().flatten(1).any(dim=1)
    cells = nn.functional.adaptive_avg_pool2d(mask[known], (logits.shape[2], logits.shape[3]))
    nats = nn.functional.binary_cross_entropy_with_logits(logits[known].float(), cells, reduction="sum")
    return shrunk * nats / known.sum().clamp(min=1)
