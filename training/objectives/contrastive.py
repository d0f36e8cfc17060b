"""`objective.contrastive`: two views of an item should be nearer to each other than to other items.

InfoNCE, van den Oord, Li, Vinyals: Representation Learning with Contrastive Predictive Coding, 2018,
https://arxiv.org/abs/1807.03748, equation 4, in the form of Chen et al.: A Simple Framework for Contrastive Learning
of Visual Representations, 2020, https://arxiv.org/abs/2002.05709, equation 1: with s = cosine / temperature,
-log exp(s_ij) / sum_{k != i} exp(s_ik), where j is the other view of i, averaged over all views of the batch.

Differs from the papers: other views of the same item are not negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def unit_length(latents: Tensor) -> Tensor:
    """Latents `(N, D)` divided by their norms, in float32 where they are halves, which are too coarse for cosines."""
    wide = torch.promote_types(latents.dtype, torch.float32)
    return nn.functional.normalize(latents.to(wide), dim=1)


def info_nce(latents: Tensor, items: Tensor, temperature: float, related: Tensor | None = None) -> Tensor:
    """InfoNCE in nats per view.

    Args:
        latents: `(2B, D)`; row i + B is the other view of row i.
        items: `(2B,)`; rows of one item are never negatives of each other.
        related: further pairs of rows that are not negatives of each other, `(2B, 2B)` bool.
    """
    rows = len(latents)
    with torch.autocast(latents.device.type, enabled=False):
        unit = unit_length(latents)
        scores = unit @ unit.T / temperature
    partner = (torch.arange(rows, device=latents.device) + rows // 2) % rows
    left_out = items[:, None] == items[None, :]
    if related is not None:
        left_out |= related
    left_out[torch.arange(rows, device=latents.device), partner] = False
    return nn.functional.cross_entropy(scores.masked_fill(left_out, -torch.inf), partner)
