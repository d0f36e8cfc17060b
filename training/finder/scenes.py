"""Training images with exact masks, composed batch by batch from an item, other objects and a background.

Each image has one item, in front of the other objects and larger than each of them. It may be anywhere in the frame and
measure from a fifth of the frame's side to more than its full length. It may be worn by a person, be cut off by the
frame, cast a shadow, and be partly hidden by another object. Random numbers come from torch's global generator.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from training.finder.cutouts import Cutouts
from training.fitting.augment import blur, luminance, to_8_bit

SCALES = (0.2, 1.1)  # ratio of an item's longer side to the frame's
OTHERS = 5  # maximum number of other objects
HIDDEN = 0.08  # share of images with an object in front of the item
BARS = 0.15  # share of images padded to a square
FLAT = 0.25  # share of images on white or one colour without other objects, like catalogue photos


class Scenes(NamedTuple):
    """Images `(B, 3, S, S)` and the share of each pixel that the item covers `(B, 1, S, S)`, both in [0, 1]."""

    images: Tensor
    masks: Tensor


class Placement(NamedTuple):
    """Poses of cut-outs, each `(B,)`: scale relative to the frame, centre in [0, 1], radians, mirrored, aspect."""

    scale: Tensor
    x: Tensor
    y: Tensor
    angle: Tensor
    mirrored: Tensor
    aspect: Tensor

    def take(self, rows: Tensor) -> Placement:
        return Placement(*(values[rows] for values in self))


class SceneMaker:
    """Composes random scenes; call it with the batch size.

    Args:
        cutouts: the items.
        backgrounds: `(N, 3, T, T)` uint8, T at least `size`.
        size: side of the images.
    """

    def __init__(self, cutouts: Cutouts, backgrounds: Tensor, size: int) -> None:
        self._items = _levels(cutouts.items)
        self._persons = _levels(cutouts.persons)
        self._under = torch.from_numpy(cutouts.under)
        self._backgrounds = backgrounds
        self.size = size

    @torch.no_grad()
    def __call__(self, count: int) -> Scenes:
        which = torch.randint(len(self._under), (count,))
        is_plain = torch.rand(count) < FLAT
        behind = torch.where(is_plain[:, None, None, None], _flat(count), self._behind(count)).contiguous()
        at = _placement(count)
        item = _recoloured(self._layer(self._items, which, at))
        canvas = self._with_others(behind, at, ~is_plain)
        canvas = self._with_persons(canvas, which, at)
        canvas = canvas * (1.0 - _shadow(item[:, 3:]))
        canvas = _over(canvas, item)
        canvas, mask = self._hidden_in_part(canvas, item[:, 3:])
        images, masks = _with_bars(_photographed(canvas), mask)
        return Scenes(to_8_bit(images), masks)

    def _behind(self, count: int) -> Tensor:
        """Random crops of backgrounds, mirrored or not."""
        pictures = self._backgrounds[torch.randint(len(self._backgrounds), (count,))].float() / 255.0
        keep = 0.4 + 0.6 * torch.rand(count)
        shift = (1.0 - keep) * _signed(2, count)
        mirrored = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
        zero = torch.zeros(count)
        maps = torch.stack([keep * mirrored, zero, shift[0], zero, keep, shift[1]], dim=1).reshape(-1, 2, 3)
        part = _sample(pictures, maps, self.size, padding="reflection")
        return (part + 0.15 * _signed(count, 1, 1, 1)) * (1.0 + 0.25 * _signed(count, 3, 1, 1))

    def _with_others(self, canvas: Tensor, item: Placement, wanted: Tensor) -> Tensor:
        """Add other objects behind the item, each smaller than it; in some images in a row, as on a shelf."""
        count = len(canvas)
        number = torch.where(wanted & (torch.rand(count) < 0.7), torch.randint(1, OTHERS + 1, (count,)), 0)
        in_row, level, depth = torch.rand(count) < 0.4, torch.rand(count), torch.rand(count)
        size = (0.3 + 0.5 * torch.rand(count)) * item.scale.clamp(max=0.8)
        for turn in range(OTHERS):
            drawn = torch.rand(2, count)
            y = torch.where(in_row, level, drawn[0])
            x = torch.where(in_row, (turn + 0.5 + 0.3 * (drawn[1] - 0.5)) / OTHERS, 1.3 * drawn[1] - 0.15)
            scale = size * torch.where(in_row, 0.9 + 0.1 * drawn[0], 0.5 + 0.5 * drawn[0])
            at = Placement(scale, x, y, 0.2 * _signed(count), torch.rand(count) < 0.5, torch.ones(count))
            shown = torch.nonzero(turn < number)[:, 0]
            layer = self._layer(self._items, torch.randint(len(self._under), (len(shown),)), at.take(shown))
            light = 1.0 - 0.5 * depth[shown, None, None, None]
            layer[:, :3] *= light
            canvas[shown] = _over(canvas[shown], layer)
        return torch.lerp(canvas, blur(canvas, 1.5), (depth * (number > 0))[:, None, None, None])

    def _with_persons(self, canvas: Tensor, which: Tensor, at: Placement) -> Tensor:
        rows = torch.nonzero(self._under[which] >= 0)[:, 0]
        canvas[rows] = _over(canvas[rows], self._layer(self._persons, self._under[which[rows]], at.take(rows)))
        return canvas

    def _hidden_in_part(self, canvas: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Put a small object in front of a few items; the pixels that it covers leave the item's mask."""
        rows = torch.nonzero(torch.rand(len(canvas)) < HIDDEN)[:, 0]
        count = len(rows)
        x, y = torch.rand(2, count)
        mirrored = torch.rand(count) < 0.5
        at = Placement(0.1 + 0.2 * torch.rand(count), x, y, math.pi * _signed(count), mirrored, torch.ones(count))
        layer = self._layer(self._items, torch.randint(len(self._under), (count,)), at)
        canvas[rows] = _over(canvas[rows], layer)
        return canvas, mask.index_put((rows,), mask[rows] * (1.0 - layer[:, 3:]))

    def _layer(self, levels: list[Tensor], which: Tensor, at: Placement) -> Tensor:
        """Cut-outs in their poses `(B, 4, S, S)`, with premultiplied colours."""
        cos, sin = torch.cos(at.angle) / at.scale, torch.sin(at.angle) / at.scale
        across = torch.where(at.mirrored, -1.0, 1.0) / at.aspect
        x, y = 2.0 * at.x - 1.0, 2.0 * at.y - 1.0
        entries = [across * cos, across * sin, -across * (cos * x + sin * y), -sin, cos, sin * x - cos * y]
        maps = torch.stack(entries, dim=1).reshape(-1, 2, 3)
        reduction = levels[0].shape[-1] / (at.scale * self.size)
        level = torch.log2(reduction).round().long().clamp(0, len(levels) - 1)
        layer = torch.zeros(len(which), 4, self.size, self.size)
        for number, bank in enumerate(levels):
            rows = torch.nonzero(level == number)[:, 0]
            if len(rows):
                layer[rows] = _sample(bank[which[rows]].float() / 255.0, maps[rows], self.size, padding="zeros")
        return layer


def _levels(rgba: NDArray[np.uint8]) -> list[Tensor]:
    """Cut-outs `(N, 4, S, S)` at S, S / 2 and S / 4 (against aliasing), with premultiplied colours."""
    whole = torch.from_numpy(rgba).clone()
    for part in torch.split(whole, 256):
        part[:, :3] = (part[:, :3].float() * part[:, 3:].float() / 255.0).round().to(torch.uint8)
    levels = [whole]
    for _ in range(2):
        halves = [avg_pool2d(part.float(), 2).round().to(torch.uint8) for part in torch.split(levels[-1], 256)]
        levels.append(torch.cat(halves))
    return levels


def _placement(count: int) -> Placement:
    """Random poses: anywhere in the frame or near its middle, upright or rotated."""
    low, high = SCALES
    scale = torch.exp(math.log(low) + (math.log(high) - math.log(low)) * torch.rand(count))
    free = (1.0 - scale).clamp(min=0.12)  # large items are sometimes cut off by the frame
    spread = torch.where(torch.rand(count) < 0.5, 1.0, 0.3)
    x, y = 0.5 + 0.5 * free * spread * _signed(2, count)
    angle = torch.where(torch.rand(count) < 0.2, math.pi, 0.3) * _signed(count)
    return Placement(scale, x, y, angle, torch.rand(count) < 0.5, torch.exp(0.25 * _signed(count)))


def _sample(pictures: Tensor, maps: Tensor, size: int, padding: str) -> Tensor:
    if not len(pictures):
        return pictures.new_zeros(0, pictures.shape[1], size, size)
    grid = torch.nn.functional.affine_grid(maps, [len(pictures), 1, size, size], align_corners=False)
    return grid_sample(pictures, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _over(canvas: Tensor, layer: Tensor) -> Tensor:
    """Composite a layer with premultiplied colours over a canvas."""
    return canvas * (1.0 - layer[:, 3:]) + layer[:, :3]


def _flat(count: int) -> Tensor:
    """White, nearly white, or any colour, `(B, 3, 1, 1)`."""
    kind = torch.rand(count, 1, 1, 1)
    pale = 1.0 - 0.15 * torch.rand(count, 1, 1, 1) - 0.04 * torch.rand(count, 3, 1, 1)
    colour = torch.where(kind < 0.8, pale, torch.rand(count, 3, 1, 1))
    return torch.where(kind < 0.4, 1.0, colour)


def _recoloured(layer: Tensor) -> Tensor:
    """Items with changed colours and light, some of them grey."""
    count, cover = len(layer), layer[:, 3:]
    colours = layer[:, :3]
    gain = (1.0 + 0.3 * _signed(count, 1, 1, 1)) * (1.0 + 0.15 * _signed(count, 3, 1, 1))
    turned = torch.stack([colours[:, torch.randperm(3)] if turn else colours for turn in (0, 1)])
    colours = torch.where(torch.rand(count, 1, 1, 1) < 0.3, turned[1], turned[0]) * gain
    lost = torch.rand(count, 1, 1, 1) < 0.1
    colours = torch.where(lost, luminance(colours), colours) + 0.1 * _signed(count, 1, 1, 1) * cover
    return torch.cat([colours.clamp(min=0.0).minimum(cover), cover], dim=1)


def _shadow(cover: Tensor) -> Tensor:
    """Share of the light that an item's shadow takes from the background, in half of the images."""
    count, side = len(cover), cover.shape[-1]
    soft = blur(cover, 0.03 * side).roll((round(0.03 * side), 0), dims=(2, 3))
    strength = 0.5 * torch.rand(count, 1, 1, 1) * (torch.rand(count, 1, 1, 1) < 0.5)
    return strength * soft


def _photographed(canvas: Tensor) -> Tensor:
    """Change light and colour balance, blur, and add noise to whole images."""
    count = len(canvas)
    lit = canvas * (1.0 + 0.2 * _signed(count, 1, 1, 1)) * (1.0 + 0.06 * _signed(count, 3, 1, 1))
    soft = torch.lerp(lit, blur(lit, 0.9), torch.rand(count, 1, 1, 1))
    noisy = soft + 0.03 * torch.rand(count, 1, 1, 1) * torch.randn_like(soft)
    return noisy.clamp(0.0, 1.0)


def _with_bars(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Make some images narrower or lower, between white bars, like photos that are padded to a square."""
    chosen = torch.nonzero(torch.rand(len(images)) < BARS)[:, 0]
    count = len(chosen)
    share = 0.5 + 0.45 * torch.rand(count)
    is_narrow = torch.rand(count) < 0.5
    one, zero = torch.ones(count), torch.zeros(count)
    across, down = torch.where(is_narrow, 1.0 / share, one), torch.where(is_narrow, one, 1.0 / share)
    maps = torch.stack([across, zero, zero, zero, down, zero], dim=1).reshape(-1, 2, 3)
    both = torch.cat([1.0 - images[chosen], masks[chosen]], dim=1)  # inverted, so that zero padding becomes white
    padded = _sample(both, maps, images.shape[-1], padding="zeros")
    images[chosen], masks[chosen] = 1.0 - padded[:, :3], padded[:, 3:]
    return images, masks


def _signed(*shape: int) -> Tensor:
    """Uniform random numbers in [-1, 1)."""
    return 2.0 * torch.rand(*shape) - 1.0
