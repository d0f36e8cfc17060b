"""Which part of the latent each pair of views teaches.

With `contrastive.shape_share` s, a share s of the pairs is shown in strange colours, and only the last share s of the
latent is compared over them; the rest is compared over the other pairs. Which colours an item has tells it from the
others, and an InfoNCE that may use them hardly needs its shape; one that may not cannot tell two colours of a thing
apart. So each part of the latent learns what the other need not (as Xiao, Wang, Efros, Darrell: What Should Not Be
Contrastive in Contrastive Learning, 2021, https://arxiv.org/abs/2008.05659, keep an embedding for each kind of change).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from training.fitting.views import shape_rows


class Part(NamedTuple):
    """Rows `(2B,)` bool of a batch of pairs, and the latents that are compared over them; 0 is looks, 1 shapes."""

    number: int
    rows: Tensor
    latents: slice


def parts_of(latent: Tensor, share: float) -> list[Part]:
    """The part that holds looks and the one that holds shapes, of latents `(2B, D)`; those without a pair left out."""
    in_strange_colours = shape_rows(len(latent), share).to(latent.device)
    looks = looks_of(latent.shape[1], share)
    parts = (Part(0, ~in_strange_colours, slice(0, looks)), Part(1, in_strange_colours, slice(looks, None)))
    return [part for part in parts if bool(part.rows.any())]


def looks_of(latent_dim: int, share: float) -> int:
    """How many latents, the first ones, hold looks."""
    return round(latent_dim * (1.0 - share))
