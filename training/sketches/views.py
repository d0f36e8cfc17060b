"""The batches of drawings of a fit, with the augmentation of Sketch-RNN.

Ha, Eck: A Neural Representation of Sketch Drawings, 2017, https://arxiv.org/abs/1704.03477, section 4.1: every drawing
is stretched at random across and down, and random points are dropped from inside its strokes. Rotation is not in the
paper.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from training.fitting.examples import Examples
from training.fitting.views import Look
from training.layers.strokes import END
from training.parallel.draws import uniform
from training.protocols import Batch
from training.recipes import Recipe
from training.recipes.schema import DrawingSettings


class SketchViews:
    """Makes batches of drawings `(B, N_max, 5)` according to a recipe, with draws from the global generator."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.settings = recipe.drawings or DrawingSettings()

    @torch.no_grad()
    def __call__(
        self,
        examples: Examples,
        *,
        augmented: bool = True,
        look: Look | None = None,
        size: int | None = None,
        small: bool = True,
    ) -> Batch:
        """One view of each drawing; `look`, `size` and `small` are of images."""
        return self.plain(examples) if not augmented else _of(augment_drawings(examples.images, self.settings))

    def plain(self, examples: Examples) -> Batch:
        """The unchanged drawings."""
        return _of(examples.images)


def _of(rows: Tensor) -> Batch:
    return Batch(rows, rows)


def augment_drawings(rows: Tensor, settings: DrawingSettings) -> Tensor:
    """Stretched, rotated and thinned drawings `(B, N_max, 5)`, with draws from the global generator."""
    B = len(rows)
    device = rows.device
    stretch = 1.0 + settings.scale * (2.0 * uniform(B, 1, 2, device=device) - 1.0)
    angle = math.radians(settings.rotate) * (2.0 * uniform(B, 1, device=device) - 1.0)
    x, y = (rows[..., :2] * stretch).unbind(-1)
    turned = torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y], dim=-1)
    changed = torch.cat([turned, rows[..., 2:]], dim=-1)
    return drop_points(changed, uniform(*rows.shape[:2], device=device) < settings.drop)


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
    end = rows.new_tensor([0.0, 0.0, 0.0, 0.0, 1.0])
    return torch.where(is_point[..., None], thinned, end)
