"""Batched compositing of items onto backgrounds, on the training device."""

from __future__ import annotations

import torch
from torch import Tensor

from training.fitting.augment import blur, luminance, to_8_bit
from training.parallel.draws import uniform
from training.recipes.schema import Backgrounds

SHADOW_BLUR, SHADOW_DROP = 0.05, 0.04  # blur and downward shift of a shadow, as fractions of the side
GAINS = (0.6, 1.6)  # limits of the factor that light matching applies to the contrast of a background


def composite(item: Tensor, mask: Tensor, background: Tensor) -> Tensor:
    """mask * item + (1 - mask) * background, rounded to multiples of 1/255.

    Args:
        item: `(B, C, H, W)` in [0, 1].
        mask: `(B, 1, H, W)` in [0, 1].
        background: `(B, C, H, W)` in [0, 1], or a shape that broadcasts to it.
    """
    return to_8_bit(mask * item + (1.0 - mask) * background)


def paste(item: Tensor, mask: Tensor, background: Tensor, settings: Backgrounds) -> Tensor:
    """Composite items as in a photo: with soft edges, matched light and a shadow, each by a random amount."""
    if settings.rough:
        mask = roughen(mask, settings.rough)
    lit = match_light(background, item, mask, settings.light) if settings.light else background
    shaded = lit * (1.0 - cast_shadow(mask, settings.shadow)) if settings.shadow else lit
    return composite(item, feather(mask, settings.feather) if settings.feather else mask, shaded)


def roughen(mask: Tensor, most: float) -> Tensor:
    """Masks with errors as from a finder: smoothed, and grown or shrunk by up to about `most` pixels."""
    soft = blur(mask, max(0.3, 0.5 * most))
    level = 0.5 + 0.4 * (2.0 * _random(mask) - 1.0)
    return ((soft - level) * (0.5 + most) + 0.5).clamp(0.0, 1.0)


def feather(mask: Tensor, sigma: float) -> Tensor:
    """Soften edges inwards by a random blur up to `sigma` pixels; pixels outside of the mask stay outside."""
    return mask * (1.0 - _random(mask) * (1.0 - blur(mask, sigma)))


def match_light(background: Tensor, item: Tensor, mask: Tensor, most: float) -> Tensor:
    """Move mean and deviation of a background's luminance towards the item's by a random fraction up to `most`."""
    bright, back = luminance(item), luminance(background)
    share = most * _random(mask)
    covered = mask.sum(dim=(2, 3), keepdim=True).clamp(min=1.0)
    mean = (mask * bright).sum(dim=(2, 3), keepdim=True) / covered
    spread = ((mask * torch.square(bright - mean)).sum(dim=(2, 3), keepdim=True) / covered).sqrt()
    own_mean = back.mean(dim=(2, 3), keepdim=True)
    own_spread = torch.square(back - own_mean).mean(dim=(2, 3), keepdim=True).sqrt()
    gain = 1.0 + share * ((spread + 0.02) / (own_spread + 0.02) - 1.0)
    moved = own_mean + share * (mean - own_mean)
    return (moved + (background - own_mean) * gain.clamp(*GAINS)).clamp(0.0, 1.0)


def cast_shadow(mask: Tensor, darkest: float) -> Tensor:
    """Fraction of the background's light that the item's shadow removes `(B, 1, H, W)`: a blurred, lowered mask."""
    side = mask.shape[-1]
    soft = blur(mask, SHADOW_BLUR * side)
    return darkest * _random(mask) * soft.roll(max(1, round(SHADOW_DROP * side)), dims=2)


def _random(mask: Tensor) -> Tensor:
    """A uniform draw from [0, 1) per image `(B, 1, 1, 1)`."""
    return uniform(len(mask), 1, 1, 1, device=mask.device)
