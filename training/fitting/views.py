"""Builds the batches of training steps from examples: augmentation, backgrounds, targets, weights and labels.

`backgrounds.hard` tries several backgrounds for a fraction of the items and keeps the one that moves the latent
furthest, by cosine, from that of the item on white. This is the adversarial choice of Xiao et al.: Noise or Signal: The
Role of Image Backgrounds in Object Recognition, 2021, https://arxiv.org/abs/2006.09994, section 4.1, applied in
training and among a few candidates. It uses the model in eval mode; k candidates for a fraction s of the images cost
s (k + 1) additional encoder passes per image, without gradient. Held-out images get random backgrounds, which do not
depend on the model.

`progressive` trains the encoder on smaller images for a fraction of the epochs, and on images of the final size
afterwards (Touvron, Vedaldi, Douze, Jegou: Fixing the train-test resolution discrepancy, 2019,
https://arxiv.org/abs/1906.06423). Augmentation and compositing use the final size, and so do masks and targets: a
decoder has a fixed size, so the likelihood is always of the full target. Held-out images have the final size, so that
epochs are comparable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from training.fitting.augment import augment_batch, draw_edges, erase
from training.fitting.compositing import composite, paste
from training.fitting.examples import Examples
from training.layers.resample import crop, resize
from training.parallel.draws import drawing_for, integers, uniform
from training.parallel.share import current_share
from training.parallel.sums import rows_of_all
from training.protocols import Batch
from training.recipes import Recipe
from training.recipes.schema import Augment, Backgrounds

WHITE = 1.0
TINY = 1e-9
Look = Callable[[Tensor], Tensor]  # images to latents, without side effects on the model
STRANGE = Augment(flip=False, brightness=0.6, contrast=0.6, saturation=0.6, hue=0.15, grey=0.25)


class Views(Protocol):
    """Makes the batches of a fit."""

    recipe: Recipe

    def __call__(
        self,
        examples: Examples,
        *,
        augmented: bool = True,
        look: Look | None = None,
        size: int | None = None,
        small: bool = True,
    ) -> Batch:
        """One view of each example; see `ViewMaker`."""
        ...

    def plain(self, examples: Examples) -> Batch:
        """The unchanged examples."""
        ...


class ViewMaker:
    """Makes batches according to a recipe, with draws from the global generator.

    Args:
        bank: backgrounds `(N, C, S, S)` uint8; None keeps the backgrounds of the images.
    """

    def __init__(self, recipe: Recipe, bank: Tensor | None = None) -> None:
        self.recipe = recipe
        self.bank = bank

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
        """One view of each example.

        Args:
            augmented: False skips `recipe.augment`; backgrounds are still replaced.
            look: computes the latents that hard backgrounds are chosen by; None chooses all backgrounds at random.
            size: side of the encoder's input; None for the side of the examples.
            small: False skips small views.
        """
        shown = size or examples.images.shape[2]
        with torch.autocast(
            examples.images.device.type, enabled=False
        ):  # halves are too coarse for coordinates and pixels
            batch = self._make(examples, augmented, look, shown, small)
            return batch._replace(x=resize(batch.x, shown))

    def _make(self, examples: Examples, augmented: bool, look: Look | None, shown: int, small: bool) -> Batch:
        settings = self.recipe.augment
        strange = own_shape_rows(len(examples), self.recipe.objective.shape_share)
        x, masks = self._changed(examples, strange) if augmented else plain_images(examples)
        seen, label = x, examples.labels
        if self.bank is not None and masks is not None:
            resized = None if look is None else lambda pictures: look(resize(pictures, shown))
            seen, numbers = self._on_other_backgrounds(x, masks, examples, resized)
            label = numbers if self.recipe.is_conditioned_on_backgrounds else label
        target = seen
        if self.recipe.objective.clean_target and masks is not None:
            target = on_white(x, masks)
        if augmented:
            seen = draw_edges(erase(seen, settings.erase), settings.edges)
        known = None
        if self.recipe.objective.foreground > 0 and masks is not None and examples.has_mask is not None:
            known = torch.where(examples.has_mask[:, None, None, None], masks, torch.nan)
        return Batch(
            seen, target, self._weight(masks), label, known, self._small_views(examples, strange) if small else None
        )

    def _changed(self, examples: Examples, strange: Tensor) -> tuple[Tensor, Tensor | None]:
        """Augmented images and masks; the images of `strange` rows `(B,)` bool, on the CPU, have strange colours."""
        images, masks = plain_images(examples)
        x, masks = augment_batch(images, self.recipe.augment, masks)
        if self.recipe.objective.shape_share > 0:
            x = in_strange_colours(x, strange)
        if masks is not None and examples.has_mask is not None:  # an image without a mask counts as the item
            masks = torch.where(examples.has_mask[:, None, None, None], masks, 1.0)
        return x, masks

    def _small_views(self, examples: Examples, strange: Tensor) -> Tensor | None:
        """Small views of each pair, with their own augmentation and backgrounds; see `Batch`."""
        settings = self.recipe.objective.small_views
        if settings is None:
            return None
        pairs = len(examples) // 2
        rows = torch.cat([torch.arange(pairs) + pairs * (turn % 2) for turn in range(settings.count)])
        sources = examples.take(rows.to(examples.images.device))
        x, masks = self._changed(sources, strange[rows])
        if self.bank is not None and masks is not None:
            x, _ = self._on_other_backgrounds(x, masks, sources, None)
        boxes = boxes_on_items(x, masks, settings.least, settings.most)
        return crop(x, boxes, settings.size or x.shape[2])

    def plain(self, examples: Examples) -> Batch:
        """The unchanged images."""
        x, _ = plain_images(examples)
        label = examples.labels
        if self.recipe.is_conditioned_on_backgrounds and self.bank is not None:
            label = torch.full((len(x),), background_labels(len(self.bank)) - 1, device=x.device)
        return Batch(x, x, None, label)

    def _on_other_backgrounds(
        self, x: Tensor, masks: Tensor, examples: Examples, look: Look | None
    ) -> tuple[Tensor, Tensor]:
        """The composited images, and the labels of their backgrounds; see `background_labels`.

        If the label conditions the model, it must determine the background: no light is matched and no shadow cast.
        """
        bank, settings = self.bank, self.recipe.backgrounds
        if bank is None or settings is None or examples.has_mask is None:
            raise ValueError("backgrounds need a bank, their settings and masks")
        if bank.device != x.device:
            bank = self.bank = bank.to(x.device)
        if self.recipe.is_conditioned_on_backgrounds:
            settings = settings.model_copy(update={"light": 0.0, "shadow": 0.0})
        numbers, mirrored = draw_numbers(bank, x)
        replaced = examples.has_mask & (uniform(len(x), device=x.device) < settings.probability)
        placed = paste(x, masks, backgrounds_of(bank, numbers, mirrored), settings)
        labels = 2 * numbers + mirrored
        if look is not None and settings.hard is not None:
            # The CPU chooses the rows: their number must be known without waiting for a GPU.
            chosen = torch.nonzero(uniform(len(x)) < settings.hard.share).squeeze(1)
            # A process without such rows draws and looks as the others do.
            hard = (chosen if len(chosen) else torch.zeros(1, dtype=torch.long)).to(x.device)
            with drawing_for(hard, len(x)):
                first = placed[hard], labels[hard]
                tried = settings.hard.candidates
                harder = hardest(x[hard], masks[hard], first, bank, settings, tried, look)
            if len(chosen):
                placed, labels = placed.index_copy(0, hard, harder[0]), labels.index_copy(0, hard, harder[1])
        return (
            torch.where(replaced[:, None, None, None], placed, x),
            torch.where(replaced, labels, background_labels(len(bank)) - 1),
        )

    def _weight(self, masks: Tensor | None) -> Tensor | None:
        least = self.recipe.objective.foreground_weight
        return None if masks is None or least == 1 else masks + least * (1.0 - masks)


def draw_numbers(bank: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """A random background per image, `(B,)` each: its number, and whether it is mirrored."""
    return integers(len(bank), len(x), x.device), uniform(len(x), device=x.device) < 0.5


def backgrounds_of(bank: Tensor, numbers: Tensor, mirrored: Tensor) -> Tensor:
    """Backgrounds `(B, C, S, S)` in [0, 1]."""
    background = bank[numbers].float() / 255.0
    return torch.where(mirrored[:, None, None, None], background.flip(3), background)


def hardest(
    x: Tensor,
    masks: Tensor,
    first: tuple[Tensor, Tensor],
    bank: Tensor,
    settings: Backgrounds,
    candidates: int,
    look: Look,
) -> tuple[Tensor, Tensor]:
    """Choose, among several backgrounds, the one that moves the latent furthest from that of the item on white.

    Args:
        x, masks: images of items `(B, C, S, S)` and their masks `(B, 1, S, S)`.
        first: the first candidate: composited images, and the labels of their backgrounds `(B,)`.

    Returns:
        Composited images and labels of the chosen candidates.
    """
    own = nn.functional.normalize(look(on_white(x, masks)), dim=1)
    pictures, labels = first[0].clone(), first[1].clone()
    nearness = (own * nn.functional.normalize(look(pictures), dim=1)).sum(dim=1)
    for _ in range(candidates - 1):
        numbers, mirrored = draw_numbers(bank, x)
        other = paste(x, masks, backgrounds_of(bank, numbers, mirrored), settings)
        found = (own * nn.functional.normalize(look(other), dim=1)).sum(dim=1)
        is_harder = found < nearness
        pictures = torch.where(is_harder[:, None, None, None], other, pictures)
        labels = torch.where(is_harder, 2 * numbers + mirrored, labels)
        nearness = torch.minimum(found, nearness)
    return pictures, labels


def on_white(x: Tensor, masks: Tensor) -> Tensor:
    """The items on white."""
    return composite(x, masks, torch.full_like(x[:1], WHITE))


def in_strange_colours(x: Tensor, rows: Tensor) -> Tensor:
    """Strongly recolour the given rows, which teach shapes; see `training.objectives.parts`.

    Args:
        rows: `(B,)` bool, on the CPU.
    """
    places = torch.nonzero(rows).squeeze(1).to(x.device)
    with drawing_for(places, len(x)):
        strange, _ = augment_batch(x[places], STRANGE)
    return x.index_copy(0, places, strange)


def boxes_on_items(x: Tensor, masks: Tensor | None, least: float, most: float) -> Tensor:
    """Random squares `(B, 4)` centred on the item, as fractions of the image.

    A square that would extend beyond its image is moved back into it.

    Args:
        x: `(B, C, S, S)`.
        masks: `(B, 1, S, S)`; without masks any pixel may be the centre.
        least, most: limits of the side.
    """
    count, side = len(x), x.shape[3]
    shares = least + (most - least) * uniform(count, device=x.device)
    chances = torch.ones(count, side * side, device=x.device) if masks is None else masks.flatten(1) + TINY
    cell = (chances / -torch.log(uniform(count, side * side, device=x.device))).argmax(dim=1)  # the first to arrive
    middle = (torch.stack([cell % side, cell // side], dim=1) + 0.5) / side
    half = 0.5 * shares[:, None]
    middle = torch.minimum(torch.maximum(middle, half), 1.0 - half)
    return torch.cat([middle - half, middle + half], dim=1)


def background_labels(count: int) -> int:
    """Number of labels for `count` backgrounds: 2 n is number n, 2 n + 1 its mirror image, the last an original."""
    return 2 * count + 1


def shape_rows(rows: int, share: float) -> Tensor:
    """Which of the `2B` rows of a batch of pairs have strange colours: both views of the last pairs."""
    pairs = rows // 2
    pair = torch.arange(rows) % max(1, pairs)
    return pair >= pairs - round(share * pairs)


def own_shape_rows(rows: int, share: float) -> Tensor:
    """`shape_rows` of the rows of all processes that share a batch, for the `rows` of this process `(rows,)`."""
    of_all = shape_rows(rows_of_all(rows), share)
    part = current_share()
    return of_all if part is None else part.own(of_all)


def plain_images(examples: Examples) -> tuple[Tensor, Tensor | None]:
    """Unchanged images `(B, C, S, S)` and masks `(B, 1, S, S)`, both in [0, 1]."""
    masks = examples.masks
    return examples.images.float() / 255.0, None if masks is None else masks[:, None].float() / 255.0
