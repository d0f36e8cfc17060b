"""VAE encoder on top of a pretrained network.

The feature maps of the network (`training.layers.backbones`) replace the encoder's own stages. The posterior heads read
averages of the maps over the item (`training.layers.foreground`; over the whole image if that is off), and a few
channels of the last map at every position, which tell the decoder where things are.

Features of a photo on a shelf differ from those of the item on white even if they are averaged over the item alone,
because of their large receptive fields. `keep` pulls them towards the features of the item on white (the target, with
the objective's `clean_target`) that the network had before tuning: a squared error, as a fraction of the variance of
those features over the batch. Romero et al.: FitNets: Hints for Thin Deep Nets, 2015,
https://arxiv.org/abs/1412.6550, equation 3, with the untuned network as the teacher; Hou, Shen, Sun, Qiu: Deep Feature
Consistent Variational Autoencoder, 2017, https://arxiv.org/abs/1610.00291, section 3.2, also compare features of a
pretrained network in the loss of a VAE.

Differs from the papers: compares averages over the item instead of maps, without a regressor between them.
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
from training.parallel.share import current_share
from training.parallel.sums import rows_of_all, summed
from training.protocols import Batch

POSITIONS = 32  # channels of the last map that are read at every position
TINY = 1e-6


class BackboneEncoder(GaussianHeads):
    """Images and their condition to the posterior.

    Args:
        config: a `VaeConfig` with a backbone.
        condition: size of the condition, which is appended to the features, as the network has no input for it.
    """

    def __init__(self, config: Any, condition: int = 0) -> None:
        super().__init__()
        self.backbone = Backbone(config.backbone)
        widths = self.backbone.widths
        self.pool = ForegroundPool(config.channels, widths, last=True) if config.foreground else None
        self.places = nn.Conv2d(widths[-1], POSITIONS, 1)
        pooled = widths[-1] if self.pool is None else self.pool.dim
        self.add_heads(pooled + POSITIONS * (config.size // STRIDE) ** 2 + condition, config.latent_dim)
        self._frozen = LEVELS - config.backbone.tuned
        self._teacher: list[nn.Module] = []  # a list, so that the teacher is not a submodule and does not ship
        if config.keep:
            self._remember()

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        self.backbone.load_published(state)
        if self._teacher:
            self._remember()

    def extract(self, x: Tensor, condition: Tensor | None = None) -> EncoderFeatures:
        """Encoder features of images `(B, C, S, S)` in [0, 1]."""
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

    def missed(self, features: EncoderFeatures, batch: Batch) -> Tensor:
        """Squared error between the features of the item and the teacher's features of the target.

        It is a fraction of the variance of the teacher's features. The teacher costs as much as the encoder, so it
        processes every second image. It averages over the mask of the item, or over the predicted foreground if the
        image has no mask.
        """
        if features.item is None:
            raise ValueError("keep needs the item's features")
        half, count = _every_second(batch.x)
        with torch.no_grad():
            levels = [*self.backbone.levels[: self._frozen], *(level.to(batch.x.device) for level in self._teacher)]
            last = run_levels(levels, self.backbone.normalise(batch.target[half]))[-1]
            wanted = average(last, self._weight(features, batch, last.shape[2])[half])
            mean = summed(wanted.sum(dim=0)) / count
            variance = summed(torch.square(wanted - mean).sum()) / count
        return summed(torch.square(features.item[half] - wanted).sum()) / count / variance.clamp(min=TINY)

    def _weight(self, features: EncoderFeatures, batch: Batch, side: int) -> Tensor:
        """Weight of each cell of the last map in the teacher's average `(B, 1, side, side)`."""
        if features.foreground is None:
            return batch.x.new_ones(len(batch.x), 1, side, side)
        weight = nn.functional.adaptive_avg_pool2d(torch.sigmoid(features.foreground.detach()), side)
        if batch.mask is not None:
            mask = nn.functional.adaptive_avg_pool2d(batch.mask, side)  # NaN for images without a mask
            weight = torch.where(mask.isnan(), weight, mask)
        return weight + LEAST

    def _remember(self) -> None:
        self._teacher = [deepcopy(level).requires_grad_(False) for level in self.backbone.levels[self._frozen :]]


def _every_second(x: Tensor) -> tuple[Tensor, int]:
    """This process's rows among every second row of all processes, and the number of those rows."""
    rows = torch.arange(rows_of_all(len(x)))
    share = current_share()
    own = rows if share is None else share.own(rows)
    return torch.nonzero(own % 2 == 0).squeeze(1).to(x.device), -(-len(rows) // 2)
