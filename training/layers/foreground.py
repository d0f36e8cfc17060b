"""Pooling over the item alone: the encoder predicts which pixels belong to the item, and pools its maps over them.

An encoder of flattened features must learn to ignore the background for every position and kind of item. Averages over
the pixels of the item ignore it by construction wherever the prediction is right, and the prediction transfers to kinds
of items that were not in training. Features are pooled from the maps of the stages between the first and the last (for
a backbone, including the last), and from soft colour bins.

The foreground is predicted from coarse to fine as in Lin et al.: Feature Pyramid Networks for Object Detection, 2017,
https://arxiv.org/abs/1612.03144, section 3; maps are masked as in Dai, He, Sun: Convolutional Feature Masking for Joint
Object and Stuff Segmentation, 2015, https://arxiv.org/abs/1412.1283. The prediction learns from masks of the training
photos (`objective.foreground` of a recipe), and from all objectives on the latent.

Differs from the papers: one head and one class; averages over the whole item instead of regions of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

WIDTH = 32  # channels of the prediction
BINS = 64  # soft colour bins
BIN_SCALE = 8.0  # brings bins, of about 1 / BINS, nearer to features, of about 1
LEAST = 1e-3  # weight of a certain background pixel, so that the total weight is never 0


class EncoderFeatures(NamedTuple):
    """Features of images, before the posterior heads.

    Args:
        features: inputs of the heads, `(B, F)`.
        foreground: logit of each cell belonging to the item, `(B, 1, h, w)`; None if it is not predicted.
        item: the last map of a backbone averaged over the item, `(B, widths[-1])`; None without a backbone.
    """

    features: Tensor
    foreground: Tensor | None
    item: Tensor | None = None


class ForegroundPool(nn.Module):
    """Maps of an encoder's stages to features of the item `(B, dim)` and the predicted foreground.

    Args:
        channels: channels of the images.
        widths: channels of the stages, each of which halves the side; at least two. The prediction has the side of the
            second stage.
        last: also pool the last stage; its features come last.
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
            x: images `(B, C, S, S)` as the stages receive them.
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
        for number, stage in enumerate(maps[self.pooled]):
            weight = nn.functional.avg_pool2d(weight, 2) if number else weight
            pooled.append(average(stage, weight))
        return torch.cat(pooled, dim=1), logits


def average(features: Tensor, weight: Tensor) -> Tensor:
    """Weighted averages `(B, C)` of maps `(B, C, h, w)` with weights `(B, 1, h, w)`."""
    share = weight / weight.sum((2, 3), keepdim=True)
    cells = features.permute(0, 2, 3, 1).flatten(1, 2)  # no copy in channels_last
    return torch.bmm(share.flatten(2).to(cells.dtype), cells).squeeze(1).float()
