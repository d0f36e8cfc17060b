"""Items with exact masks, cut out and scaled to one size, from which training images are composed.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.backgrounds import Draw
from training.data.dataset import Dataset
from training.data.studio import Item, Scene, make_item, place_board, random_scene, render
from training.data.studio.products import WEARABLE
from training.data.studio.scenes import draw_figure
from training.errors import SourceError
from training.finder.shapes import draw_shape

Pixels = NDArray[np.uint8]
SIDE = 128  # pixels of a side of a cut-out
MARGIN = 0.04  # margin around the item, as a fraction of its longer side
MIN_AREA = 0.02  # minimum share of its square that an item fills
STUDIO_SEED = 2**30  # synthetic shops have smaller seeds


class Cutout(NamedTuple):
    """An item `(SIDE, SIDE, 4)` uint8 RGBA, and the person who wears it, in the same frame."""

    item: Pixels
    under: Pixels | None = None


@dataclass(frozen=True)
class Cutouts:
    """Cut-outs `(N, 4, SIDE, SIDE)` uint8 and the persons under them `(M, 4, SIDE, SIDE)` uint8.

    Args:
        under: index of the person under each cut-out `(N,)`, -1 if there is none.
    """

    items: Pixels
    persons: Pixels
    under: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.items)


def gather(cutouts: Iterable[Cutout]) -> Cutouts:
    """Collect cut-outs in arrays.

    Raises:
        SourceError: there are no cut-outs.
    """
    items: list[Pixels] = []
    persons: list[Pixels] = []
    under: list[int] = []
    for item, person in cutouts:
        items.append(item.transpose(2, 0, 1))
        under.append(len(persons) if person is not None else -1)
        if person is not None:
            persons.append(person.transpose(2, 0, 1))
    if not items:
        raise SourceError("there is nothing to cut out; give --shapes, --studio, --cutouts or photos with masks")
    empty = np.zeros((0, 4, SIDE, SIDE), np.uint8)
    return Cutouts(np.stack(items), np.stack(persons) if persons else empty, np.array(under, np.int64))


def normalise(rgba: Pixels, under: Pixels | None = None) -> Cutout | None:
    """Crop an item `(H, W, 4)` to its extent and scale it to `SIDE`; None if it has too few pixels.

    Args:
        under: the person, `(H, W, 4)`, cropped and scaled in the same way.
    """
    rows, columns = np.nonzero(rgba[..., 3] > 64)
    if len(rows) < 16:
        return None
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    side = max(bottom - top, right - left) * (1.0 + 2.0 * MARGIN)
    if (rgba[top:bottom, left:right, 3] > 64).sum() < MIN_AREA * side**2:
        return None
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    return Cutout(_window(rgba, x, y, side), None if under is None else _window(under, x, y, side))


def _window(rgba: Pixels, x: float, y: float, side: float) -> Pixels:
    """A square crop scaled to `SIDE`, transparent beyond the edges of the image."""
    premultiplied = rgba.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255.0
    step = side / SIDE
    if step > 1:  # blur first, against aliasing
        premultiplied = np.asarray(cv2.GaussianBlur(premultiplied, (0, 0), 0.45 * (step - 1) + 1e-3), np.float32)
    moving = np.array([[step, 0, x + 0.5 * step - 0.5], [0, step, y + 0.5 * step - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    taken = np.asarray(cv2.warpAffine(premultiplied, moving, (SIDE, SIDE), flags=flags), np.float32)
    taken[..., :3] /= np.maximum(taken[..., 3:], 1.0) / 255.0
    return np.clip(np.round(taken), 0, 255).astype(np.uint8)


def shape_cutouts(count: int, seed: int, material: Draw | None = None) -> Iterator[Cutout]:
    """Cut-outs of random shapes, see `training.finder.shapes`."""
    for number in range(count):
        found = normalise(draw_shape(np.random.default_rng([seed, 21, number]), SIDE, material))
        if found is not None:
            yield found


def studio_cutouts(count: int, seed: int) -> Iterator[Cutout]:
    """Cut-outs of items of the synthetic shop: half of them solids; two thirds of the garments are worn by a person."""
    for number in range(count):
        item = make_item(STUDIO_SEED + seed, number // 2, "solids" if number % 2 else "shop")
        found = _photographed(item, number)
        if found is not None:
            yield found


def _photographed(item: Item, number: int) -> Cutout | None:
    scene = random_scene(item, number % 7)
    person: Pixels | None = None
    if item.category in WEARABLE and item.stock == "shop" and number % 3:
        scene = Scene(scene.pose, scene.light, scene.background_id, number)
        person = _person(scene)
    photo = render(item, Scene(scene.pose, scene.light, scene.background_id, None), SIDE)
    return normalise(np.dstack([photo.product, photo.mask]), person)


def _person(scene: Scene) -> Pixels:
    """The person of a scene alone, `(SIDE, SIDE, 4)`."""
    colours, cover = place_board(draw_figure(np.random.default_rng(scene.figure)), scene.pose, SIDE)
    return np.clip(np.round(np.dstack([colours, cover * 255.0])), 0, 255).astype(np.uint8)


def file_cutouts(folder: Path, keep: Callable[[str], bool] = lambda name: True) -> Iterator[Cutout]:
    """Cut-outs from the images with an alpha channel in a folder and its sub-folders.

    Args:
        keep: selects files by name.

    Raises:
        SourceError: the folder does not exist.
    """
    if not folder.is_dir():
        raise SourceError(f"cut-outs {folder}: no such folder")
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and keep(path.name)):
        try:
            with Image.open(path) as image:
                rgba = np.asarray(image.convert("RGBA"))
        except (OSError, SyntaxError, ValueError):
            continue  # not an image, such as the folder's list of licences
        found = normalise(rgba) if rgba[..., 3].min() < 128 else None
        if found is not None:
            yield found


def photo_cutouts(dataset: Dataset, usable: Sequence[bool]) -> Iterator[Cutout]:
    """Items cut out of photos along their masks."""
    if dataset.masks is None:
        raise ValueError("photos are cut out along their masks; load the dataset with masks")
    for image, mask, is_usable in zip(dataset.images, dataset.masks, usable, strict=True):
        if is_usable:
            inner = cv2.erode(mask, np.ones((3, 3), np.uint8))  # without a rim of the old background
            found = normalise(np.dstack([image.transpose(1, 2, 0), inner]))
            if found is not None:
                yield found
