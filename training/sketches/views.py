"""The batches of drawings of a fit, changed anew in every epoch."""

from __future__ import annotations

import torch

from training.fitting.examples import Examples
from training.fitting.views import Look
from training.protocols import Batch
from training.recipes import Recipe
from training.recipes.schema import DrawingSettings
from training.sketches.augment import change_form, change_strokes


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
        """One view of each drawing; `look`, `size` and `small` are of images.

        The encoder alone sees strokes in another order or direction: the target is drawn as it was.
        """
        if not augmented:
            return self.plain(examples)
        target = change_form(examples.images, self.settings)
        return Batch(change_strokes(target, self.settings), target)

    def plain(self, examples: Examples) -> Batch:
        """The unchanged drawings."""
        return Batch(examples.images, examples.images)
