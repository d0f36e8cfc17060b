"""Training images cropped to their items, as the inner encoder of `training.models.item_first` receives them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.dataset import FAILED, Dataset
from training.data.memory import bytes_array
from training.finder.network import Finder
from training.layers.resample import crop
from training.models.item_first import ItemFirst, ItemFirstConfig, within
from training.recipes.schema import ItemFirstSettings

BATCH = 64


@torch.inference_mode()
def crop_to_items(
    dataset: Dataset, finder: Finder, settings: ItemFirstSettings, size: int, folder: Path | None = None
) -> Dataset:
    """The data set with each image and mask cropped to the item that the finder locates, `(N, 3, size, size)`.

    Args:
        dataset: images with side `settings.size`.
        size: side of the crops.
        folder: as for `training.data.dataset.load_dataset`.
    """
    model = ItemFirst(
        ItemFirstConfig(
            size=settings.size,
            finder=asdict(finder.config),
            encoder={"family": "pixels", "config": {"size": size, "channels": 3}},
            margin=settings.margin,
            paint=0.0,
        )
    ).eval()
    model.finder = finder
    images = bytes_array((len(dataset), 3, size, size), folder)
    masks = None if dataset.masks is None else bytes_array((len(dataset), size, size), folder)
    for first in range(0, len(dataset), BATCH):
        rows = slice(first, first + BATCH)
        x = torch.from_numpy(dataset.images[rows]).float() / 255.0
        region = model.locate(x)
        images[rows] = _to_bytes(model.cut_out(x, region))
        if masks is not None and dataset.masks is not None:
            coverage = torch.from_numpy(dataset.masks[rows]).float()[:, None] / 255.0
            masks[rows] = _to_bytes(crop(coverage, region.box, size) * within(region.box, size))[:, 0]
    if masks is not None:
        masks[[source == FAILED for source in dataset.mask_sources]] = 255  # still without a usable mask
    return replace(dataset, images=images, masks=masks)


def _to_bytes(x: torch.Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = torch.round(x.clamp(0.0, 1.0) * 255.0).to(torch.uint8).numpy()
    return pixels
