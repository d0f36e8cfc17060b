"""Pooling over the item alone: the encoder guesses which pixels are the item's, and pools its maps there.

A vector of flattened features must learn to leave the background out for every place and kind of item. Averages over
the item's pixels leave it out by construction wherever the guess is right, and such a guess carries over to kinds of
items that were never seen. What is pooled: the maps of the stages between the first and
the last (that of a backbone included), and soft bins of the colours.

The guess is made from coarse to fine as in Lin et al.: Feature Pyramid Networks for Object Detection, 2017,
https://arxiv.org/abs/1612.03144, section 3; maps are masked as in Dai, He, Sun: Convolutional Feature Masking for Joint
Object and Stuff Segmentation, 2015, https://arxiv.org/abs/1412.1283. It learns from masks of the training photos
(`objective.foreground` of a recipe), and from whatever is asked of the latent.

Differs from the papers: one head and one class; averages over the whole item, not over regions of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

WIDTH = 32  # channels in which the guess is made
BINS = 64  # of colour
BIN_SCALE = 8.0  # their shares are about 1 / BINS, and features are about 1
LEAST = 1e-3  # weight of a pixel that is surely not the item's, so that there is always something to pool


class EncoderFeatures(NamedTuple):
    """What an encoder reads of images.

    Args:
        features: read by the heads, `(B, F)`.
        foreground: logit of each cell being the item, `(B, 1, h, w)`, where that is guessed.
        item: a backbone's last map averaged over the item, `(B, widths[-1])`, where there is one.
    """

    features: Tensor
    foreground: Tensor | None
    item: Tensor | None = None


class ForegroundPool(nn.Module):
    """Maps of an encoder's stages to features of the item, `(B, dim)`, and the guess of where it is.

    Args:
        channels: of the images.
        widths: of the stages, each of which halves the side; at least two. The guess has the second's side.
        last: pool the last stage as well; its features are the last ones.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], *, last: bool = False) -> None:
        super().__init__()
        self.pooled = slice(1, None if last else -1)
        self.laterals = nn.ModuleList(nn.Conv2d(width, WIDTH, 1) for width in widths[1:])
        self.guess = nn.Conv2d(WIDTH, 1, 1)
        self.colours = nn.Sequential(nn.Conv2d(channels, WIDTH, 1), nn.SiLU(), nn.Conv2d(WIDTH, BINS, 1))
        self.dim = sum(widths[self.pooled]) + BINS

    def forward(self, x: Tensor, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Pooled features `(B, dim)` float32 and logits `(B, 1, S / 4, S / 4)`.

        Args:
            x: images `(B, C, S, S)` as the stages see them.
            maps: output of each stage, from fine to coarse.
        """
        *finer, coarsest = zip(self.laterals, maps[1:], strict=True)
        h = coarsest[0](coarsest[1])
        for lateral, stage in reversed(finer):
            h = nn.functional.interpolate(nn.functional.silu(h), scale_factor=2.0) + lateral(stage)
        logits: Tensor = self.guess(nn.functional.silu(h)).float()
        weight = torch.sigmoid(logits) + LEAST
        bins = BIN_SCALE * torch.softmax(self.colours(nn.functional.avg_pool2d(x, 4)).float(), dim=1)
        pooled = [average(bins, weight)]
        for place, stage in enumerate(maps[self.pooled]):
            weight = nn.functional.avg_pool2d(weight, 2) if place else weight
            pooled.append(average(stage, weight))
        return torch.cat(pooled, dim=1), logits


def average(features: Tensor, weight: Tensor) -> Tensor:
    """`(B, C)` of maps `(B, C, h, w)` by weights `(B, 1, h, w)`."""
    share = weight / weight.sum((2, 3), keepdim=True)
    places = features.permute(0, 2, 3, 1).flatten(1, 2)  # no copy in channels_last
    return torch.bmm(share.flatten(2).to(places.dtype), places).squeeze(1).float()
