"""Regions of a query image: given by the request, chosen by the encoder, or proposed by the item finder."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from indexer.errors import InvalidRequestError
from training.preprocessing import Box, Preprocessing

if TYPE_CHECKING:
    from training.embedder import Embedder


MIN_SIDE = 1e-3  # of a reported region, as a fraction of the image
MARGIN = 0.08  # added on each side of an item's box, in shares of its longer side, as family `item-first` crops
FINDER_PIXELS = 2048  # of the shorter side: more would not change what the finder sees
ChosenBy = Literal["request", "encoder", "nobody"]


@dataclass(frozen=True)
class Region:
    """A rectangle of the upright image, in fractions of its width and height."""

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        values = (self.x, self.y, self.width, self.height)
        inside = (
            0 <= self.x < 1 and 0 <= self.y < 1 and self.x + self.width <= 1 + 1e-6 and self.y + self.height <= 1 + 1e-6
        )
        if not (all(np.isfinite(values)) and inside and self.width > 0 and self.height > 0):
            raise InvalidRequestError(
                "region", f"region {list(values)} must be x,y,width,height as fractions inside the image, 0 to 1"
            )

    def crop(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The pixels `(h, w, 3)` of an image `(H, W, 3)` inside the region; h and w are at least 1."""
        height, width = pixels.shape[:2]
        left, top = min(int(self.x * width), width - 1), min(int(self.y * height), height - 1)
        right = max(left + 1, ceil((self.x + self.width) * width - 1e-6))
        bottom = max(top + 1, ceil((self.y + self.height) * height - 1e-6))
        return np.ascontiguousarray(pixels[top:bottom, left:right])


WHOLE = Region(0.0, 0.0, 1.0, 1.0)


def parse_region(text: str) -> Region:
    """Parse `x,y,width,height`; raises `InvalidRequestError` for anything else."""
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError as exc:
        raise InvalidRequestError("region", f"region {text!r} must be four numbers: x,y,width,height") from exc
    return Region(x, y, width, height)


@dataclass(frozen=True)
class Used:
    """The region of a query image that was embedded, and who chose it.

    Args:
        chosen_by: `request` if the request gave the region, `encoder` if the encoder found the item in it, `nobody`
            for the whole image.
        confidence: the encoder's confidence that the region holds the item, in [0, 1]; None unless it chose.
    """

    region: Region
    chosen_by: ChosenBy
    confidence: float | None = None


@dataclass(frozen=True)
class FoundItem:
    """An item in a query image.

    Args:
        region: the region to search with.
        confidence: the finder's expected overlap (IoU) of its mask with the items, in [0, 1]; items found in one pass
            share it.
    """

    region: Region
    confidence: float


def used_region(
    embedder: Embedder, requested: Region | None, found: NDArray[np.float32] | None, size: tuple[int, int]
) -> Used:
    """The region of an image of `(width, height)` that was embedded.

    Args:
        found: `(1, 5)`, the encoder's box and its confidence; None if it embeds images whole.
    """
    if requested is not None:
        return Used(requested, "request")
    preprocessing = embedder.described.preprocessing
    if found is None or not isinstance(preprocessing, Preprocessing):
        return Used(WHOLE, "nobody")
    left, top, right, bottom, confidence = (float(value) for value in found[0])
    region = _region_of(preprocessing.to_source((left, top, right, bottom), *size))
    return Used(region, "encoder", min(1.0, max(0.0, confidence)))


def items_in(pixels: NDArray[np.uint8]) -> list[FoundItem]:
    """The items that the shipped finder sees in an image `(H, W, 3)`."""
    from training.data.item_finder import finder_side, predict
    from training.finder.regions import find_regions

    height, width = pixels.shape[:2]
    square = Preprocessing(finder_side(), 3, "pad")
    step = max(1, min(width, height) // FINDER_PIXELS)  # a large picture is not copied
    found = find_regions(square.apply(pixels[::step, ::step]).transpose(1, 2, 0), predict)
    boxes = (square.to_source(_with_margin(item.box), width, height) for item in found)
    return [FoundItem(_region_of(box), item.confidence) for box, item in zip(boxes, found, strict=True)]


def _with_margin(box: Box) -> Box:
    left, top, right, bottom = box
    margin = MARGIN * max(right - left, bottom - top)
    return left - margin, top - margin, right + margin, bottom + margin


def _region_of(box: Box) -> Region:
    """A box (left, top, right, bottom) in fractions of the image as a region inside it, `MIN_SIDE` or larger."""
    x, y = min(box[0], 1.0 - MIN_SIDE), min(box[1], 1.0 - MIN_SIDE)
    return Region(x, y, max(box[2] - x, MIN_SIDE), max(box[3] - y, MIN_SIDE))
