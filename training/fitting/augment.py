"""Batched data augmentation on the training device, with different random parameters for every image.

torchvision's v2 transforms draw parameters once per batch, and processing single images is too slow on a CPU. Here all
geometric changes are one projective map per image and one `grid_sample`, which transforms the mask as an additional
channel; colour changes are tensor arithmetic with one factor per image. Grey values come from v2.
"""

from __future__ import annotations

import math
from typing import overload

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad
from torchvision.transforms.v2 import functional as v2

from training.parallel.draws import uniform
from training.recipes.schema import Augment

ERASED = (0.08, 0.33)  # smallest and largest side of an erased rectangle, as a fraction of the image
INKED, FAINT = 0.35, 0.1  # gradients that are drawn black and white, as fractions of an image's largest
NEGLIGIBLE = 1e-9  # blur weights below become 0: denormal products take a CPU ten times as long
# NTSC luma and the two axes of its colour plane, in which hue is an angle.
TO_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


@overload
def augment_batch(x: Tensor, settings: Augment) -> tuple[Tensor, None]: ...


@overload
def augment_batch(x: Tensor, settings: Augment, masks: Tensor) -> tuple[Tensor, Tensor]: ...


@overload
def augment_batch(x: Tensor, settings: Augment, masks: Tensor | None) -> tuple[Tensor, Tensor | None]: ...


def augment_batch(x: Tensor, settings: Augment, masks: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Augment each image of a batch `(B, C, H, W)` in [0, 1] with draws from the global generator; does not erase.

    Args:
        masks: `(B, M, H, W)` in [0, 1], transformed with the same geometry as their images; 0 beyond their edges.

    Returns:
        Images of the same shape whose values are multiples of 1/255, as 8-bit likelihoods require, and their masks.
    """
    both = x if masks is None else torch.cat([x, masks], dim=1)
    moved, inside = _move(both, settings)
    images, moved_masks = (moved, None) if masks is None else (moved[:, : x.shape[1]], moved[:, x.shape[1] :] * inside)
    coloured = _recolour(images, settings)
    if coloured is not x:
        coloured = to_8_bit(coloured)
    return coloured, moved_masks


def erase(x: Tensor, probability: float) -> Tensor:
    """Replace a random rectangle by the mean colour of the image, in a fraction `probability` of the images."""
    if probability == 0:
        return x
    count, _, height, width = x.shape
    least, most = ERASED
    across, down = least + (most - least) * _uniform(x, 2)
    left, top = _uniform(x, 2) * torch.stack([1.0 - across, 1.0 - down])
    column = (torch.arange(width, device=x.device) + 0.5) / width
    row = (torch.arange(height, device=x.device) + 0.5) / height
    inside_x = (column >= left[:, None]) & (column < (left + across)[:, None])
    inside_y = (row >= top[:, None]) & (row < (top + down)[:, None])
    chosen = uniform(len(x), device=x.device) < probability
    hidden = (chosen[:, None, None] & inside_y[:, :, None] & inside_x[:, None, :])[:, None]
    return torch.where(hidden, to_8_bit(x.mean(dim=(2, 3), keepdim=True)), x)


def draw_edges(x: Tensor, probability: float) -> Tensor:
    """Replace a fraction `probability` of the images by drawings of their edges, dark lines on white."""
    if probability == 0:
        return x
    chosen = uniform(len(x), device=x.device) < probability
    return torch.where(chosen[:, None, None, None], edges(x), x)


def edges(x: Tensor) -> Tensor:
    """Drawings of the edges of images, of the same shape: dark where the luminance of the blurred image changes most.

    The gradient is Sobel's. Lines are black from `INKED` of the image's largest gradient on; an image of one colour
    becomes white.
    """
    grey = pad(blur(luminance(x), 1.0), (1, 1, 1, 1), mode="replicate")
    across = grey[:, :, :, 2:] - grey[:, :, :, :-2]
    down = grey[:, :, 2:] - grey[:, :, :-2]
    across = across[:, :, :-2] + 2.0 * across[:, :, 1:-1] + across[:, :, 2:]
    down = down[:, :, :, :-2] + 2.0 * down[:, :, :, 1:-1] + down[:, :, :, 2:]
    steep = torch.hypot(across, down)
    most = steep.amax(dim=(1, 2, 3), keepdim=True).clamp(min=FAINT)
    ink = ((steep / most - FAINT) / (INKED - FAINT)).clamp(0.0, 1.0)
    return to_8_bit(1.0 - ink).expand_as(x)


def to_8_bit(x: Tensor) -> Tensor:
    """Round to multiples of 1/255 in [0, 1]."""
    return torch.round(x.clamp(0.0, 1.0) * 255.0) / 255.0


def _move(x: Tensor, settings: Augment) -> tuple[Tensor, Tensor | float]:
    """Transformed images, padded by reflection, and a map of the pixels that are not padding."""
    mirrored = uniform(len(x), device=x.device) < 0.5 if settings.flip else None
    is_still = settings.crop == 1 and settings.aspect == 1 and not _turns(settings)
    if is_still:
        return (x if mirrored is None else torch.where(mirrored[:, None, None, None], x.flip(3), x)), 1.0
    maps = _crops(x, settings, mirrored)
    if _turns(settings):
        maps = maps @ _turnings(x, settings)
    if settings.perspective == 0:
        grid = affine_grid(maps[:, :2], list(x.shape), align_corners=False)
    else:
        grid = _projective_grid(maps @ _tilts(x, settings.perspective), x)
    inside = (grid.abs() <= 1.0).all(dim=3)[:, None].to(x.dtype)
    return grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False), inside


def _turns(settings: Augment) -> bool:
    return any((settings.rotate, settings.scale, settings.translate, settings.shear, settings.perspective))


def _crops(x: Tensor, settings: Augment, mirrored: Tensor | None) -> Tensor:
    """Maps `(B, 3, 3)` from output to input coordinates, both in [-1, 1]: a crop, possibly mirrored."""
    count = len(x)
    keep = settings.crop + (1.0 - settings.crop) * uniform(len(x), device=x.device)
    keep_x, keep_y = keep, keep
    if settings.aspect > 1:
        stretch = torch.exp(0.5 * math.log(settings.aspect) * _signed(x))
        keep_x, keep_y = (keep * stretch).clamp(max=1.0), (keep / stretch).clamp(max=1.0)
    shift_x, shift_y = _signed(x) * (1.0 - keep_x), _signed(x) * (1.0 - keep_y)
    sign = torch.ones(count, device=x.device)
    if mirrored is not None:
        sign = torch.where(mirrored, -sign, sign)
    return _matrices(keep_x * sign, None, shift_x, None, keep_y, shift_y, None, None)


def _turnings(x: Tensor, settings: Augment) -> Tensor:
    """Maps `(B, 3, 3)`: rotation, scaling, shear and translation."""
    angle = math.radians(settings.rotate) * _signed(x)
    size = 1.0 + settings.scale * _signed(x)
    slants = math.radians(settings.shear)
    slant_x, slant_y = torch.tan(slants * _signed(x)), torch.tan(slants * _signed(x))
    shift_x, shift_y = 2.0 * settings.translate * _signed(x), 2.0 * settings.translate * _signed(x)
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    return _matrices(cos, -sin, shift_x, sin, cos, shift_y, None, None) @ _matrices(
        None, slant_x, None, slant_y, None, None, None, None
    )


def _tilts(x: Tensor, most: float) -> Tensor:
    return _matrices(None, None, None, None, None, None, 0.5 * most * _signed(x), 0.5 * most * _signed(x))


def _matrices(*entries: Tensor | None) -> Tensor:
    """`(B, 3, 3)` from eight entries `(B,)` in row order and a last entry of 1; None takes the identity's entry."""
    given = next(entry for entry in entries if entry is not None)
    one, zero = torch.ones_like(given), torch.zeros_like(given)
    identity = (one, zero, zero, zero, one, zero, zero, zero)
    filled = [same if entry is None else entry for entry, same in zip(entries, identity, strict=True)]
    return torch.stack([*filled, one], dim=1).reshape(-1, 3, 3)


def _projective_grid(maps: Tensor, x: Tensor) -> Tensor:
    identity = torch.eye(2, 3, device=x.device)[None]
    points = affine_grid(identity, [1, 1, *x.shape[2:]], align_corners=False).reshape(-1, 2)
    homogeneous = torch.cat([points, torch.ones_like(points[:, :1])], dim=1)  # (H W, 3)
    mapped = homogeneous @ maps.transpose(1, 2)  # (B, H W, 3)
    return (mapped[..., :2] / mapped[..., 2:]).reshape(len(x), *x.shape[2:], 2)


def _recolour(x: Tensor, settings: Augment) -> Tensor:
    if settings.brightness:
        x = x * _factor(x, settings.brightness)
    if settings.contrast:
        mean = luminance(x).mean(dim=(2, 3), keepdim=True)
        x = mean + (x - mean) * _factor(x, settings.contrast)
    if x.shape[1] == 3:
        x = _recolour_hues(x, settings)
    if settings.blur:
        x = torch.lerp(x, blur(x, settings.blur), _uniform(x, 1)[0][:, None, None, None])
    return x


def _recolour_hues(x: Tensor, settings: Augment) -> Tensor:
    if settings.saturation:
        grey = luminance(x)
        x = grey + (x - grey) * _factor(x, settings.saturation)
    if settings.hue:
        angle = 2.0 * math.pi * settings.hue * _signed(x)
        zero, one = torch.zeros_like(angle), torch.ones_like(angle)
        cos, sin = torch.cos(angle), torch.sin(angle)
        turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).reshape(-1, 3, 3)
        axes = torch.tensor(TO_YIQ, device=x.device)
        x = torch.einsum("bij,bjhw->bihw", torch.linalg.inv(axes) @ turn @ axes, x)
    if settings.grey:
        loses = uniform(len(x), device=x.device) < settings.grey
        x = torch.where(loses[:, None, None, None], luminance(x), x)
    return x


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `(B, C, H, W)` as two matrix products, many times faster than a convolution on a CPU."""
    down, across = (_blurring(side, sigma, x) for side in x.shape[2:])
    return down @ x @ across.T


def _blurring(side: int, sigma: float, x: Tensor) -> Tensor:
    positions = torch.arange(side, device=x.device, dtype=x.dtype)
    weights = torch.softmax(-0.5 * torch.square((positions[:, None] - positions[None, :]) / sigma), dim=1)
    return torch.where(weights > NEGLIGIBLE, weights, 0.0)


def luminance(x: Tensor) -> Tensor:
    """Grey values `(B, 1, H, W)`, ITU-R 601."""
    grey: Tensor = v2.rgb_to_grayscale(x) if x.shape[1] == 3 else x
    return grey


def _factor(x: Tensor, most: float) -> Tensor:
    return (1.0 + most * _signed(x))[:, None, None, None]


def _uniform(x: Tensor, rows: int) -> Tensor:
    """Draws `(rows, B)` from [0, 1)."""
    return uniform(len(x), rows, device=x.device).T


def _signed(x: Tensor) -> Tensor:
    """Draws `(B,)` from [-1, 1)."""
    return 2.0 * uniform(len(x), device=x.device) - 1.0
