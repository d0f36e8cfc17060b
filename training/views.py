"""From examples to what a training step is given: changed pictures, other backgrounds, targets, weights, labels."""

from __future__ import annotations

import torch
from torch import Tensor

from training.augment import augment_batch, erase
from training.compositing import composite, place
from training.examples import Examples
from training.models.protocols import Batch
from training.recipes import Recipe
from training.recipes.schema import Augment

WHITE = 1.0
STRANGE = Augment(flip=False, brightness=0.6, contrast=0.6, saturation=0.6, hue=0.15, grey=0.25)


class ViewMaker:
    """Makes batches by a recipe, with draws from the global generator.

    Args:
        bank: backgrounds `(N, C, S, S)` uint8; None leaves every image its own.
    """

    def __init__(self, recipe: Recipe, bank: Tensor | None = None) -> None:
        self.recipe = recipe
        self.bank = bank

    @torch.no_grad()
    def __call__(self, examples: Examples, *, augmented: bool = True) -> Batch:
        """One view of each example.

        Args:
            augmented: False leaves out the changes of `recipe.augment`; backgrounds are replaced all the same.
        """
        with torch.autocast(examples.images.device.type, enabled=False):  # places and pixels need more than halves
            return self._make(examples, augmented)

    def _make(self, examples: Examples, augmented: bool) -> Batch:
        settings = self.recipe.augment
        x, masks = plain_images(examples)
        if augmented:
            x, masks = augment_batch(x, settings, masks)
            x = self._in_strange_colours(x)
            if masks is not None and examples.has_mask is not None:  # all of a picture without a mask is its item
                masks = torch.where(examples.has_mask[:, None, None, None], masks, 1.0)
        seen, label = x, examples.labels
        if self.bank is not None and masks is not None:
            seen, numbers = self._on_other_backgrounds(x, masks, examples)
            label = numbers if self.recipe.is_conditioned_on_backgrounds else label
        target = seen
        if self.recipe.objective.clean_target and masks is not None:
            target = composite(x, masks, torch.full_like(x[:1], WHITE))
        if augmented:
            seen = erase(seen, settings.erase)
        known = None
        if self.recipe.objective.foreground > 0 and masks is not None and examples.has_mask is not None:
            known = torch.where(examples.has_mask[:, None, None, None], masks, torch.nan)
        return Batch(seen, target, self._weight(masks), label, known)

    def plain(self, examples: Examples) -> Batch:
        """The images as they are."""
        x, _ = plain_images(examples)
        label = examples.labels
        if self.recipe.is_conditioned_on_backgrounds and self.bank is not None:
            label = torch.full((len(x),), background_labels(len(self.bank)) - 1, device=x.device)
        return Batch(x, x, None, label)

    def _on_other_backgrounds(self, x: Tensor, masks: Tensor, examples: Examples) -> tuple[Tensor, Tensor]:
        """The pictures, and the label of each one's background; see `background_labels`.

        Where the label conditions the model it says all that is behind the item: no light is matched, no shadow cast.
        """
        bank, settings = self.bank, self.recipe.backgrounds
        if bank is None or settings is None or examples.has_mask is None:
            raise ValueError("backgrounds need a bank, their settings and masks")
        if bank.device != x.device:
            bank = self.bank = bank.to(x.device)
        numbers = torch.randint(len(bank), (len(x),), device=x.device)
        mirrored = torch.rand(len(x), device=x.device) < 0.5
        replaced = examples.has_mask & (torch.rand(len(x), device=x.device) < settings.probability)
        background = bank[numbers].float() / 255.0
        background = torch.where(mirrored[:, None, None, None], background.flip(3), background)
        if self.recipe.is_conditioned_on_backgrounds:
            settings = settings.model_copy(update={"light": 0.0, "shadow": 0.0})
        placed = place(x, masks, background, settings)
        return (
            torch.where(replaced[:, None, None, None], placed, x),
            torch.where(replaced, 2 * numbers + mirrored, background_labels(len(bank)) - 1),
        )

    def _in_strange_colours(self, x: Tensor) -> Tensor:
        """The pairs that teach shapes, recoloured beyond recognition; see `training.objectives`."""
        contrastive = self.recipe.objective.contrastive
        if contrastive is None or contrastive.shape_share == 0:
            return x
        rows = shape_rows(len(x), contrastive.shape_share).to(x.device)
        strange, _ = augment_batch(x[rows], STRANGE)
        return x.masked_scatter(rows[:, None, None, None], strange)

    def _weight(self, masks: Tensor | None) -> Tensor | None:
        least = self.recipe.objective.foreground_weight
        return None if masks is None or least == 1 else masks + least * (1.0 - masks)


def background_labels(count: int) -> int:
    """Labels of `count` backgrounds: 2 n is number n as it was drawn, 2 n + 1 mirrored, the last a photo's own."""
    return 2 * count + 1


def shape_rows(rows: int, share: float) -> Tensor:
    """Which of the `2B` rows of a batch of pairs are shown in strange colours: the last pairs, both views of each."""
    pairs = rows // 2
    place = torch.arange(rows) % max(1, pairs)
    return place >= pairs - round(share * pairs)


def plain_images(examples: Examples) -> tuple[Tensor, Tensor | None]:
    """Images `(B, C, S, S)` and masks `(B, 1, S, S)`, both in [0, 1]."""
    masks = examples.masks
    return examples.images.float() / 255.0, None if masks is None else masks[:, None].float() / 255.0
