"""Builds the input of a fit from a data set and a recipe: both sides of the split, labels and backgrounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.dataset import FAILED, Dataset
from training.data.memory import rows_of
from training.errors import RecipeError
from training.fitting.examples import Examples
from training.fitting.views import ViewMaker, Views, background_labels
from training.recipes import Recipe


class TrainingData(NamedTuple):
    """Both sides of the split, the maker of their batches, and the labels.

    Args:
        label_names: by number; empty without a condition and for backgrounds, whose labels have no names.
        classes: number of labels; 0 without a condition.
    """

    training: Examples
    held_out: Examples
    views: Views
    label_names: list[str]
    classes: int


def build_training_data(recipe: Recipe, dataset: Dataset, folder: Path | None = None) -> TrainingData:
    """Split a data set, number its items and labels, and draw the backgrounds.

    Args:
        folder: as for `training.data.dataset.load_dataset`.

    Raises:
        RecipeError: the recipe does not fit the data.
        SourceError: there are fewer than two items, or the folder of backgrounds has no images.
    """
    condition = recipe.objective.condition
    has_labels = condition is not None and not recipe.is_conditioned_on_backgrounds
    found = _values(dataset, str(condition)) if has_labels else []
    names = sorted(set(found))
    items = {item_id: number for number, item_id in enumerate(sorted(set(dataset.item_ids)))}
    everything = Examples(
        images=torch.from_numpy(dataset.images),
        items=torch.tensor([items[item_id] for item_id in dataset.item_ids]),
        masks=None if dataset.masks is None else torch.from_numpy(dataset.masks),
        has_mask=torch.tensor([source != FAILED for source in dataset.mask_sources]) if dataset.mask_sources else None,
        labels=_numbers(found, names) if has_labels else None,
    )
    _check_masks(recipe, everything)
    training, held_out = (_side(everything, rows, folder) for rows in dataset.split(recipe.validation))
    bank = _draw_backgrounds(recipe, training)
    of_backgrounds = background_labels(len(bank)) if bank is not None and recipe.is_conditioned_on_backgrounds else 0
    classes = len(names) if has_labels else of_backgrounds
    wanted = recipe.model.get("classes")
    if classes and wanted not in (None, classes):
        raise RecipeError(
            f"recipe {recipe.name}: model.classes is {wanted}, the data has {classes} values of {condition}; "
            "leave model.classes out"
        )
    return TrainingData(training, held_out, ViewMaker(recipe, bank), names, classes)


def _side(everything: Examples, rows: NDArray[np.intp], folder: Path | None) -> Examples:
    """Some of the examples; their images and masks are mapped from files in `folder` if memory is short."""

    def copied(pixels: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(rows_of(pixels.numpy(), rows, folder))

    small = replace(everything, images=everything.items, masks=None).take(torch.from_numpy(rows))
    masks = None if everything.masks is None else copied(everything.masks)
    return replace(small, images=copied(everything.images), masks=masks)


def _values(dataset: Dataset, condition: str) -> list[str]:
    """The label of each image."""
    if condition == "item_id":
        return dataset.item_ids
    values = [attributes.get(condition, "") for attributes in dataset.attributes]
    missing = [item_id for item_id, value in zip(dataset.item_ids, values, strict=True) if not value]
    if missing:
        raise RecipeError(
            f"objective.condition is {condition!r}, but {len(missing)} of {len(values)} images have no value for it "
            f"(the first is of item {missing[0]!r}); add the values, or condition on another attribute"
        )
    return values


def _numbers(values: list[str], names: list[str]) -> torch.Tensor:
    numbers = {name: number for number, name in enumerate(names)}
    return torch.tensor([numbers[value] for value in values])


def _check_masks(recipe: Recipe, examples: Examples) -> None:
    if recipe.needs_masks and (examples.has_mask is None or not bool(examples.has_mask.any())):
        raise RecipeError(
            f"recipe {recipe.name}: backgrounds and background objectives need masks, but none of {len(examples)} "
            "images has a usable one; give a mask column, or images with an alpha channel"
        )


def _draw_backgrounds(recipe: Recipe, training: Examples) -> torch.Tensor | None:
    if recipe.backgrounds is None or training.masks is None:
        return None
    from training.data.backgrounds import PhotoBackgrounds, build_backgrounds  # imports OpenCV

    photos = PhotoBackgrounds(training.images.numpy(), training.masks.numpy())
    settings = recipe.preprocessing
    bank = build_backgrounds(recipe.backgrounds, recipe.seed, settings.size, settings.channels, photos)
    return torch.from_numpy(bank)
