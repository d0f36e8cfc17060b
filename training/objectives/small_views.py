"""`objective.small_views`: parts of an image should match its full views.

Multi-crop of Caron et al.: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, 2020,
https://arxiv.org/abs/2006.09882, section 3.2 and equation 6: a pair has V small views beside its two full views. Small
views are only compared with full views, never with each other: assignments and the other side of the contrastive loss
come from full views, without gradients. Each small view is compared with both full views. A term becomes

    (full + V small) / (1 + V)

the mean over all compared views. Small views only need latents; nothing is decoded.

A convolutional encoder takes small views of side `size` (its last map is resampled to the side that the heads expect);
half the side costs a quarter. Other encoders take them at their own size. Batch statistics of small views do not enter
the running statistics, which ship; since those do not fit small views, validation uses full views alone.

Differs from the paper: the centre of a small view is on the item if the image has a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.objectives.contrastive import unit_length
from training.objectives.prototypes import Prototypes


def small_info_nce(
    small: Tensor, latents: Tensor, items: Tensor, temperature: float, related: Tensor | None = None
) -> Tensor:
    """InfoNCE of small views among the full views of each half of the batch, in nats per comparison.

    Args:
        small: `(V B, D)`: one of the first view of every pair, then one of the second view of every pair, and so on.
        latents: latents of the full views `(2B, D)`.
        items, related: of the full views, see `contrast.info_nce`.
    """
    pairs = len(latents) // 2
    pair = torch.arange(len(small), device=small.device) % pairs
    with torch.autocast(small.device.type, enabled=False):
        scores = unit_length(small) @ unit_length(latents.detach()).T / temperature
    view = torch.arange(len(small), device=small.device)
    source = pair + pairs * (view // pairs % 2)  # the row that a small view was cropped from
    left_out = items[source, None] == items[None, :]
    if related is not None:
        left_out = left_out | related[source]
    nats = []
    for full in (slice(0, pairs), slice(pairs, 2 * pairs)):
        others = left_out[:, full].clone()
        others[view, pair] = False
        nats.append(nn.functional.cross_entropy(scores[:, full].masked_fill(others, -torch.inf), pair))
    return torch.stack(nats).mean()


def small_swapped(small: Tensor, latents: Tensor, prototypes: Prototypes) -> Tensor:
    """Cross-entropy of the assignments of both full views under the scores of small views, in nats per comparison."""
    scores = prototypes.scores(small)
    views = len(small) // (len(latents) // 2)
    halves = prototypes.scores(latents.detach()).detach().chunk(2)
    nats = [prototypes.missed(scores, prototypes.assignments(half).repeat(views, 1)) for half in halves]
    return torch.stack(nats).mean()


def with_small(full: Tensor, small: Tensor, views: int) -> Tensor:
    """The mean over one full view and `views` small views."""
    return (full + views * small) / (1 + views)
