"""Random changes of drawings in training.

Ha, Eck: A Neural Representation of Sketch Drawings, 2017, https://arxiv.org/abs/1704.03477, section 4.1: every drawing
is stretched at random across and down, and random points are dropped from inside its strokes. Rotation, slant and warp
are not in the paper. They change a drawing's form as other hands do; the order and the direction of its strokes change
how it was drawn, and not what can be seen of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from training.layers.strokes import END
from training.parallel.draws import uniform
from training.recipes.schema import DrawingSettings

LIFTED = 3  # column of the pen state p2


def change_form(rows: Tensor, settings: DrawingSettings) -> Tensor:
    """Drawings `(B, N_max, 5)` of another form, by another hand, with draws from the global generator."""
    B = len(rows)
    device = rows.device
    stretch = 1.0 + settings.scale * _symmetric(B, 1, 2, device=device)
    angle = math.radians(settings.rotate) * _symmetric(B, 1, device=device)
    slant = torch.tan(math.radians(settings.shear) * _symmetric(B, 1, device=device))
    x, y = (rows[..., :2] * stretch).unbind(-1)
    x = x + slant * y
    turned = torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y], dim=-1)
    changed = torch.cat([turned, rows[..., 2:]], dim=-1)
    if settings.warp > 0:
        changed = warp(changed, settings.warp)
    return drop_points(changed, uniform(*rows.shape[:2], device=device) < settings.drop)


def change_strokes(rows: Tensor, settings: DrawingSettings) -> Tensor:
    """The same drawings `(B, N_max, 5)` in other strokes, with draws from the global generator."""
    if settings.order == settings.reverse == 0:
        return rows
    B, N = rows.shape[:2]
    device = rows.device
    in_order = torch.arange(N, device=device).expand(B, N)
    shuffled = uniform(B, N, device=device).argsort(1)
    is_shuffled = uniform(B, 1, device=device) < settings.order
    is_reversed = uniform(B, N, device=device) < settings.reverse
    return redrawn(rows, torch.where(is_shuffled, shuffled, in_order), is_reversed)


def redrawn(rows: Tensor, ranks: Tensor, is_reversed: Tensor) -> Tensor:
    """Drawings `(B, N_max, 5)` with the same strokes in another order, and some drawn from their other end.

    Args:
        ranks: numbers to sort strokes by, the smallest first: column s is of stroke s, `(B, N_max)`, below N_max.
        is_reversed: whether stroke s is drawn from its other end, `(B, N_max)`.
    """
    N = rows.shape[1]
    is_point = rows[..., END] < 0.5
    lifted = (rows[..., LIFTED] > 0.5).long()
    stroke = (lifted.cumsum(1) - lifted).clamp(max=N - 1)
    within = torch.arange(N, device=rows.device).expand_as(stroke)
    within = torch.where(is_reversed.gather(1, stroke), N - 1 - within, within)
    keys = torch.where(is_point, ranks.gather(1, stroke) * N + within, N * N)
    order = keys.argsort(dim=1, stable=True)
    stroke = stroke.gather(1, order)
    is_last = torch.ones_like(is_point)
    is_last[:, :-1] = (stroke[:, 1:] != stroke[:, :-1]) | ~is_point[:, 1:]
    places = rows[..., :2].cumsum(1).gather(1, order[..., None].expand(-1, -1, 2))
    offsets = torch.diff(places, dim=1, prepend=places[:, :1])
    changed = torch.cat([offsets, torch.stack([~is_last, is_last, ~is_point], dim=-1).to(rows)], dim=-1)
    return torch.where(is_point[..., None], changed, _end(rows))


def warp(rows: Tensor, most: float) -> Tensor:
    """Smoothly distorted drawings `(B, N_max, 5)`, with draws from the global generator.

    The place p of a point moves across by a sin(2 pi u.p / S + phi), and likewise down: u is a random vector of up to
    one wave over the drawing's longer side S, and a at most `most` S.
    """
    B, device = len(rows), rows.device
    is_point = rows[..., END:] < 0.5
    places = rows[..., :2].cumsum(1)
    low = torch.where(is_point, places, torch.inf).amin(1)
    high = torch.where(is_point, places, -torch.inf).amax(1)
    side = (high - low).amax(1).clamp(min=1e-6)[:, None, None]  # of the drawing; infinite without points
    waves = _symmetric(B, 2, 2, device=device)
    phase = math.pi * _symmetric(B, 1, 2, device=device)
    size = most * side * _symmetric(B, 1, 2, device=device)
    moved = places + size * torch.sin(2.0 * math.pi * (places / side) @ waves + phase)
    offsets = torch.diff(moved, dim=1, prepend=moved[:, :1])
    return torch.where(is_point, torch.cat([offsets, rows[..., 2:]], dim=-1), _end(rows))


def drop_points(rows: Tensor, chosen: Tensor) -> Tensor:
    """Drawings `(B, N_max, 5)` without the chosen points `(B, N_max)` bool that are inside of strokes.

    The offset of a dropped point is added to that of the next, so that all others stay where they are. The first and
    the last point of a stroke are kept.
    """
    draws = rows[..., 2] > 0.5
    follows = torch.cat([torch.zeros_like(draws[:, :1]), draws[:, :-1]], dim=1)  # the pen draws to this point
    kept = ~(chosen & draws & follows)
    places = rows[..., :2].cumsum(1)
    order = torch.argsort((~kept).long(), dim=1, stable=True)
    kept, places = kept.gather(1, order), places.gather(1, order[..., None].expand(-1, -1, 2))
    states = rows[..., 2:].gather(1, order[..., None].expand(-1, -1, 3))
    offsets = torch.diff(places, dim=1, prepend=torch.zeros_like(places[:, :1]))
    thinned = torch.cat([offsets, states], dim=-1)
    is_point = kept & (states[..., END - 2] < 0.5)
    return torch.where(is_point[..., None], thinned, _end(rows))


def _symmetric(*shape: int, device: torch.device) -> Tensor:
    """Uniform between -1 and 1."""
    return 2.0 * uniform(*shape, device=device) - 1.0


def _end(like: Tensor) -> Tensor:
    """The row of a drawing's end `(5,)`."""
    return like.new_tensor([0.0, 0.0, 0.0, 0.0, 1.0])
