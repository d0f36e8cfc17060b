"""The regions of several items in one photo, from a finder trained to find one: predict, hide, predict again.

Each connected part of a predicted mask is an item. The parts are hidden under the colours around them, and the finder
predicts again, until it predicts a low quality, finds nothing new, or only a plain background is left. Hidden parts are
filled from coarse to fine, each level where the finer one has no pixels, as in Gortler et al.: The Lumigraph, 1996,
https://doi.org/10.1145/237170.237200, section 3.4 (pull-push).

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.item_finder import Prediction

MAX_REGIONS = 6  # of a photo
MAX_LOOKS = 4  # predictions per photo; further ones find no more items
THRESHOLD = 0.5  # probability above which a cell belongs to an item
MIN_CONFIDENCE = (0.3, 0.5)  # minimum quality of the first prediction (as `doubt` in `item-first`) and of later ones
MIN_SHARE = 0.008  # minimum share of the photo's cells; smaller parts are specks
MIN_RELATIVE_WEIGHT = 0.1  # minimum weight relative to the largest item's
SAME_ITEM_OVERLAP = 0.5  # share of the smaller box inside the other above which both show one item
LEFTOVER_RIM = 0.3  # share of a part's rim next to earlier parts above which it is their remainder
HIDDEN_RIM = 3  # pixels around an item that are hidden with it: its edge and shadow
PLAIN_RANGE = 24  # maximum range, in 8-bit levels, of a plain image

Pixels = NDArray[np.uint8]
Cells = NDArray[np.bool_]
Floats = NDArray[np.float32]
Predict = Callable[[Pixels], Prediction]


class ItemRegion(NamedTuple):
    """The region of an item.

    Args:
        box: left, top, right, bottom as fractions of the image.
        confidence: the finder's predicted IoU, 0 to 1; equal for all items found in one prediction.
        weight: share of the image that the item covers, times its mean probability.
    """

    box: tuple[float, float, float, float]
    confidence: float
    weight: float


class _Part(NamedTuple):
    region: ItemRegion
    cells: Cells


def find_regions(pixels: Pixels, predict: Predict) -> list[ItemRegion]:
    """The items in an image `(S, S, 3)` uint8 of the finder's size, by descending weight.

    Args:
        predict: the finder's prediction for such an image, `training.data.item_finder.predict`.
    """
    found: list[ItemRegion] = []
    seen: Cells | None = None
    for turn in range(MAX_LOOKS):
        guess = predict(pixels)
        seen = np.zeros(guess.probability.shape, np.bool_) if seen is None else seen
        if guess.quality < MIN_CONFIDENCE[turn > 0]:
            break
        parts = _parts(guess, seen)
        fresh = [part.region for part in parts if _rim_share(part.cells, seen) <= LEFTOVER_RIM]
        if not fresh:
            break
        found += _apart(fresh, found)
        for part in parts:
            seen = seen | part.cells
        pixels = hide(pixels, seen)
        if _is_plain(pixels):
            break
    largest = max((region.weight for region in found), default=0.0)
    kept = [region for region in found if region.weight >= MIN_RELATIVE_WEIGHT * largest]
    return sorted(kept, key=lambda region: -region.weight)[:MAX_REGIONS]


def hide(pixels: Pixels, cells: Cells) -> Pixels:
    """Fill the cells `(h, h)` of an image `(S, S, 3)` uint8 with the colours around them."""
    side = len(pixels)
    mask = cv2.resize(cells.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST)
    mask = cv2.dilate(mask, np.ones((2 * HIDDEN_RIM + 1, 2 * HIDDEN_RIM + 1), np.uint8))
    kept = (1 - mask).astype(np.float32)[..., None]
    levels: list[Floats] = [np.concatenate([pixels * kept, kept], axis=2)]
    while (half := len(levels[-1]) // 2) >= 1:
        levels.append(np.asarray(cv2.resize(levels[-1], (half, half), interpolation=cv2.INTER_AREA), np.float32))
    mean, share = levels[-1][..., :3], float(levels[-1][0, 0, 3])
    colours = mean / share if share else np.full_like(mean, 255.0)
    for level in reversed(levels):
        wider = cv2.resize(colours, (len(level), len(level)), interpolation=cv2.INTER_LINEAR)
        colours = level[..., :3] + (1.0 - level[..., 3:]) * wider.reshape(*level.shape[:2], 3)
    return np.clip(np.round(colours), 0, 255).astype(np.uint8)


def _parts(guess: Prediction, seen: Cells) -> list[_Part]:
    """The connected parts of a mask, without cells seen before and without specks."""
    mask = (guess.probability > THRESHOLD) & ~seen
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    height, width = mask.shape
    parts = []
    for label in range(1, count):
        x, y, w, h, area = (int(value) for value in stats[label])
        if area < MIN_SHARE * mask.size:
            continue
        cells = labels == label
        weight = float(guess.probability[cells].sum()) / mask.size
        box = (x / width, y / height, (x + w) / width, (y + h) / height)
        parts.append(_Part(ItemRegion(box, guess.quality, weight), cells))
    return parts


def _rim_share(cells: Cells, seen: Cells) -> float:
    """Share of the cells next to a part that belong to earlier parts."""
    rim = (cv2.dilate(cells.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~cells
    return float(seen[rim].mean()) if rim.any() else 0.0


def _apart(fresh: Iterable[ItemRegion], found: Iterable[ItemRegion]) -> list[ItemRegion]:
    """The new regions that show an item of their own, the largest first."""
    before = list(found)
    kept: list[ItemRegion] = []
    for region in sorted(fresh, key=lambda region: -region.weight):
        if all(_shared(region.box, other.box) <= SAME_ITEM_OVERLAP for other in (*before, *kept)):
            kept.append(region)
    return kept


def _shared(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Share of the smaller of two boxes that lies inside the other one."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(across, 0.0) * max(down, 0.0) / smaller


def _is_plain(pixels: Pixels) -> bool:
    """Whether a whole image has one colour, apart from noise.

    The border mask of `training.data.masks` tests only the frame of a photo, which still has its item.
    """
    side = len(pixels) // 4
    coarse = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    return int(np.ptp(coarse.reshape(-1, 3), axis=0).max()) <= PLAIN_RANGE
