"""The encoder of a VAE that begins with a trained network: what it knows of things, without what is behind them.

The maps of the network (`training.layers.backbones`) take the place of the encoder's own stages. The heads read
averages of them over the item (`training.layers.foreground`; over the whole picture where that is off) and a few
channels of the last map place by place, for the decoder to know where things are.

Features of a photo on a shelf differ from those of the item on white even where they are averaged over the item alone,
because each sees far around itself. `keep` asks for the features of the item on white (the target, with the objective's
`clean_target`) as the network gave them before it was tuned: a squared error, as a share of those features' variance
over the batch. Romero et al.: FitNets: Hints for Thin Deep Nets, 2015, https://arxiv.org/abs/1412.6550, equation 3,
with the untuned network as the teacher; Hou, Shen, Sun, Qiu: Deep Feature Consistent Variational Autoencoder, 2017,
https://arxiv.org/abs/1610.00291, section 3.2, compare features of a trained network in a VAE's loss too.

Differs from the papers: averages over the item are compared, not maps, and no regressor lies between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from training.layers.backbones import LEVELS, STRIDE, Backbone, run_levels
from training.layers.foreground import LEAST, EncoderFeatures, ForegroundPool, average
from training.layers.gaussian import GaussianHeads
from training.protocols import Batch

PLACES = 32  # channels of the last map that are read place by place
TINY = 1e-6


class BackboneEncoder(GaussianHeads):
    """Images, and what they are conditioned on, to the posterior.

    Args:
        config: a `VaeConfig` with a backbone.
        condition: numbers that join the features of each image: a trained network has no inputs for them.
    """

    def __init__(self, config: Any, condition: int = 0) -> None:
        super().__init__()
        self.backbone = Backbone(config.backbone)
        widths = self.backbone.widths
        self.pool = ForegroundPool(config.channels, widths, last=True) if config.foreground else None
        self.places = nn.Conv2d(widths[-1], PLACES, 1)
        pooled = widths[-1] if self.pool is None else self.pool.dim
        self.add_heads(pooled + PLACES * (config.size // STRIDE) ** 2 + condition, config.latent_dim)
        self._frozen = LEVELS - config.backbone.tuned
        self._teacher: list[nn.Module] = []  # no modules of this one: the teacher does not ship
        if config.keep:
            self._remember()

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        self.backbone.load_published(state)
        if self._teacher:
            self._remember()

    def extract(self, x: Tensor, condition: Tensor | None = None) -> EncoderFeatures:
        """What the heads go by, of images `(B, C, S, S)` in [0, 1]."""
        maps = self.backbone(x)
        foreground = None
        if self.pool is None:
            pooled = maps[-1].mean(dim=(2, 3))
        else:
            pooled, foreground = self.pool(2.0 * x - 1.0, maps)
        places = self.places(maps[-1]).flatten(1)
        parts = [pooled, places] if condition is None else [pooled, places, condition]
        item = pooled[:, pooled.shape[1] - self.backbone.widths[-1] :]
        return EncoderFeatures(
            torch.cat([part.to(places.dtype) for part in parts], dim=1), foreground, item.to(x.dtype)
        )

    def missed(self, seen: EncoderFeatures, batch: Batch) -> Tensor:
        """Squared error of the item's features to the teacher's of the targets, as a share of those' variance.

        The teacher, which costs as much as the encoder, is shown every second image. It averages over the mask of the
        item; over the guess where there is no mask.
        """
        if seen.item is None:
            raise ValueError("keep needs the item's features")
        with torch.no_grad():
            levels = [*self.backbone.levels[: self._frozen], *(level.to(batch.x.device) for level in self._teacher)]
            last = run_levels(levels, self.backbone.normalise(batch.target[::2]))[-1]
            wanted = average(last, self._weight(seen, batch, last.shape[2])[::2])
            variance = torch.square(wanted - wanted.mean(dim=0)).sum(dim=1).mean()
        return torch.square(seen.item[::2] - wanted).sum(dim=1).mean() / variance.clamp(min=TINY)

    def _weight(self, seen: EncoderFeatures, batch: Batch, side: int) -> Tensor:
        """Of each cell of the last map in the teacher's average `(B, 1, side, side)`."""
        if seen.foreground is None:
            return batch.x.new_ones(len(batch.x), 1, side, side)
        weight = nn.functional.adaptive_avg_pool2d(torch.sigmoid(seen.foreground.detach()), side)
        if batch.mask is not None:
            mask = nn.functional.adaptive_avg_pool2d(batch.mask, side)  # NaN where there is none
            weight = torch.where(mask.isnan(), weight, mask)
        return weight + LEAST

    def _remember(self) -> None:
        self._teacher = [deepcopy(level).requires_grad_(False) for level in self.backbone.levels[self._frozen :]]
