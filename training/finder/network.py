"""A class-agnostic foreground network: it predicts the mask of the item in a photo, and the quality of that mask.

An encoder of convolutional stages and a decoder that goes from coarse to fine with lateral connections, as in
Ronneberger, Fischer, Brox: U-Net, 2015, https://arxiv.org/abs/1505.04597, with sums instead of concatenations (Lin et
al.: Feature Pyramid Networks, 2017, https://arxiv.org/abs/1612.03144, section 3). The average of the
coarsest map is added to it, so that each cell depends on the whole image (Liu, Rabinovich, Berg: ParseNet, 2015,
https://arxiv.org/abs/1506.04579). A second head predicts the intersection over union (IoU) of the mask with the true
one, as in Huang et al.: Mask Scoring R-CNN, 2019, https://arxiv.org/abs/1903.00241: the network's confidence.

Differs from the papers: no pretrained weights, one class; the mask has half the side of the image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from training.layers.blocks import Block, Residual, fold_blocks
from training.layers.checks import check_at_least


@dataclass(frozen=True, kw_only=True)
class FinderConfig:
    """Configuration of `Finder`.

    Args:
        size: side of the images in pixels, a multiple of 2^len(widths).
        widths: channels of the stages; each stage halves the side.
        depths: residual blocks after the strided convolution of each stage.
        decoder_widths: channels of the decoder's maps from fine to coarse, one fewer than `widths`.
        normalisation: True in training; False once the normalisation is folded into the convolutions.
    """

    size: int = 96
    widths: tuple[int, ...] = (16, 32, 64, 128)
    depths: tuple[int, ...] = (0, 1, 2, 3)
    decoder_widths: tuple[int, ...] = (16, 24, 48)
    normalisation: bool = True

    def __post_init__(self) -> None:
        for name in ("widths", "depths", "decoder_widths"):  # JSON gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
            check_at_least(f"least of {name}", min(getattr(self, name), default=-1), 0 if name == "depths" else 1)
        if len(self.widths) < 2 or len(self.depths) != len(self.widths):
            raise ValueError(f"depths must be {len(self.widths)} numbers, one per stage of two or more")
        if len(self.decoder_widths) != len(self.widths) - 1:
            raise ValueError(f"decoder_widths must be {len(self.widths) - 1} numbers, not {self.decoder_widths}")
        if self.size < 8 or self.size % 2 ** len(self.widths):
            raise ValueError(f"size must be a multiple of {2 ** len(self.widths)}, not {self.size}")


class FinderOutput(NamedTuple):
    """Logits of the mask `(B, 1, S / 2, S / 2)`, and the logit of its predicted IoU `(B,)`."""

    mask: Tensor
    quality: Tensor


class Finder(nn.Module):
    """Images `(B, 3, S, S)` in [0, 1] to `FinderOutput`.

    Example:
        >>> found = Finder(FinderConfig(size=32))(torch.rand(2, 3, 32, 32))
        >>> found.mask.shape, found.quality.shape
        (torch.Size([2, 1, 16, 16]), torch.Size([2]))
    """

    def __init__(self, config: FinderConfig) -> None:
        super().__init__()
        self.config = config
        normalise = config.normalisation
        self.stages = nn.ModuleList()
        for (before, after), depth in zip(pairwise((3, *config.widths)), config.depths, strict=True):
            first = Block(nn.Conv2d(before, after, 3, stride=2, padding=1, bias=not normalise), normalise)
            self.stages.append(nn.Sequential(first, *(Residual(after, normalise) for _ in range(depth))))
        coarsest = config.widths[-1]
        self.whole = nn.Linear(coarsest, coarsest)
        self.laterals = nn.ModuleList(
            nn.Conv2d(w, d, 1) for w, d in zip(config.widths[:-1], config.decoder_widths, strict=True)
        )
        narrowing = zip((*config.decoder_widths[1:], coarsest), config.decoder_widths, strict=True)
        self.down = nn.ModuleList(nn.Conv2d(wide, narrow, 1) for wide, narrow in narrowing)
        self.mixes = nn.ModuleList(Residual(width, normalise) for width in config.decoder_widths)
        self.mask = nn.Conv2d(config.decoder_widths[0], 1, 3, padding=1)
        self.quality = nn.Sequential(nn.Linear(coarsest + 2, 32), nn.SiLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> FinderOutput:
        h = (2.0 * x - 1.0).contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in self.stages:
            h = stage(h)
            maps.append(h)
        whole = nn.functional.silu(self.whole(h.mean(dim=(2, 3))))
        h = h + whole[:, :, None, None]
        finest_last = reversed(list(zip(maps[:-1], self.laterals, self.down, self.mixes, strict=True)))
        for fine, lateral, down, mix in finest_last:
            h = mix(nn.functional.silu(lateral(fine) + nn.functional.interpolate(down(h), scale_factor=2.0)))
        mask: Tensor = self.mask(h)
        return FinderOutput(mask, self._quality(mask, whole))

    def _quality(self, mask: Tensor, whole: Tensor) -> Tensor:
        """Predict the quality from image features, mask area and cell confidence, with no gradient into these."""
        p = torch.sigmoid(mask.detach())
        sure = (p * p).sum(dim=(1, 2, 3)) / p.sum(dim=(1, 2, 3)).clamp(min=1e-3)
        features = torch.cat([whole.detach(), p.mean(dim=(1, 2, 3))[:, None], sure[:, None]], dim=1)
        quality: Tensor = self.quality(features)[:, 0]
        return quality

    def folded(self) -> Self:
        """An equivalent network for inference, with the normalisation folded into the convolutions."""
        plain = type(self)(replace(self.config, normalisation=False)).eval()
        fold_blocks(self.eval(), plain)
        return plain
