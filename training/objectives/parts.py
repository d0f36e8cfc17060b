"""Assigns parts of the latent to pairs of views: one part learns appearance, the other shape.

With `contrastive.shape_share` s, a fraction s of the pairs is recoloured strongly, and only the last fraction s of the
latent is compared over them; the rest of the latent is compared over the other pairs. With colour available, InfoNCE
can ignore shape; without it, it cannot tell apart two colours of a product. Hence each part learns what the other
ignores. Xiao, Wang, Efros, Darrell: What Should Not Be Contrastive in Contrastive Learning, 2021,
https://arxiv.org/abs/2008.05659, likewise keep an embedding per kind of augmentation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from training.fitting.views import shape_rows


class Part(NamedTuple):
    """Rows `(R,)` int64 of a batch of pairs and the latents that are compared over them; 0 is looks, 1 is shapes."""

    number: int
    rows: Tensor
    latents: slice


def parts_of(latent: Tensor, share: float) -> list[Part]:
    """The parts for looks and for shapes of latents `(2B, D)`, without parts that have no pair."""
    in_strange_colours = shape_rows(len(latent), share)
    looks = looks_of(latent.shape[1], share)
    numbered = enumerate(((~in_strange_colours, slice(0, looks)), (in_strange_colours, slice(looks, None))))
    parts = [Part(number, torch.nonzero(rows).squeeze(1), latents) for number, (rows, latents) in numbered]
    return [part._replace(rows=part.rows.to(latent.device)) for part in parts if len(part.rows)]


def looks_of(latent_dim: int, share: float) -> int:
    """Number of leading latents that hold looks."""
    return round(latent_dim * (1.0 - share))
