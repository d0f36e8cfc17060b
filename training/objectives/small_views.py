"""`objective.small_views`: parts of a picture belong where its whole views belong.

Multi-crop of Caron et al.: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, 2020,
https://arxiv.org/abs/2006.09882, section 3.2 and equation 6: besides its two full views a pair has V small ones. They
are asked and never answer: assignments, and the other side of a contrast, are of full views alone, and no gradient goes
through these. Each small view is compared with both full ones. A term becomes

    (full + V small) / (1 + V)

the mean over what is asked. Latents alone are needed of small views: nothing is decoded.

A convolutional encoder takes pictures of `size` (the heads read its last map place by place, so that map is resampled
to the side they were made for); with half the side a small view costs a quarter. Other encoders are shown the parts at
their own size. Statistics of small pictures do not enter the running ones, which ship; as
these do not fit small pictures, held-out figures are of full views alone.

Differs from the paper: the middle of a small view is on the item where a mask says where that is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.objectives.prototypes import Prototypes


def small_info_nce(
    small: Tensor, latents: Tensor, items: Tensor, temperature: float, related: Tensor | None = None
) -> Tensor:
    """InfoNCE of small views among the full views of either half of the batch, in nats per comparison.

    Args:
        small: `(V B, D)`, one of every pair's first view, then one of every pair's second view, and so on.
        latents: of the full views `(2B, D)`.
        items, related: of the full views, see `contrast.info_nce`.
    """
    pairs = len(latents) // 2
    pair = torch.arange(len(small), device=small.device) % pairs
    with torch.autocast(small.device.type, enabled=False):  # cosines need more digits than halves have
        unit = nn.functional.normalize(latents.detach().float(), dim=1)
        scores = nn.functional.normalize(small.float(), dim=1) @ unit.T / temperature
    view = torch.arange(len(small), device=small.device)
    source = pair + pairs * (view // pairs % 2)  # the row that a small view was cut from
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
    """Cross-entropy of the assignments of both full views under each small view's scores, in nats per comparison."""
    scores = prototypes.scores(small)
    views = len(small) // (len(latents) // 2)
    halves = prototypes.scores(latents.detach()).detach().chunk(2)
    nats = [prototypes.missed(scores, prototypes.assignments(half).repeat(views, 1)) for half in halves]
    return torch.stack(nats).mean()


def with_small(full: Tensor, small: Tensor, views: int) -> Tensor:
    """The mean over one full and `views` small views that are asked."""
    return (full + views * small) / (1 + views)
