"""Which photos show the same product, in catalogues without labels.

Three sources, in this order: several photos of one item; near-duplicate photos, which merge the items that have them
into one product; and views, random transformations of a photo, for items with a single photo. Results state which one
was used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Truth = Literal["photos", "views"]

THUMB_SIDE = 32
THUMB_ERROR = 7.0  # maximum root mean square difference of the thumbnails of near-duplicates, in levels of 255
THUMB_CORRELATION = 0.985  # minimum correlation; distinguishes pale photos, which differ by few levels
TURN, SHRINK, MOVE = 8.0, (0.85, 1.05), 0.04  # degrees, scale, share of the side
EXPOSURE, TINT = 0.1, 0.03


def other_view(rng: np.random.Generator, pixels: Pixels, mask: Pixels | None = None) -> tuple[Pixels, Pixels | None]:
    """A random view of a photo: rotated up to 8 degrees, scaled by .85 to 1.05, shifted up to 4 %, exposure up to 10 %.

    Args:
        pixels: `(H, W, 3)` uint8.
        mask: `(H, W)` uint8; transformed in the same way.
    """
    height, width = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D(
        (width / 2, height / 2), float(rng.uniform(-TURN, TURN)), float(rng.uniform(*SHRINK))
    )
    turn[:, 2] = turn[:, 2] + rng.uniform(-MOVE, MOVE, 2) * np.array([width, height])
    light = rng.uniform(1 - EXPOSURE, 1 + EXPOSURE) * (1 + rng.uniform(-TINT, TINT, 3))
    moved = cv2.warpAffine(pixels, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    levels = np.clip(np.round(np.arange(256)[:, None] * light), 0, 255).astype(np.uint8)
    lit = np.asarray(cv2.LUT(moved, levels.reshape(256, 1, 3)), np.uint8)
    if mask is None:
        return lit, None
    return lit, cv2.warpAffine(mask, turn, (width, height), flags=cv2.INTER_LINEAR).astype(np.uint8)


def products(items: Sequence[str], pictures: Pixels) -> NDArray[np.int64]:
    """The product number of each photo `(N,)`; items with near-duplicate photos are one product.

    Args:
        items: item of each photo.
        pictures: `(N, S, S, 3)` uint8.
    """
    names, product = np.unique(np.asarray(items, np.str_), return_inverse=True)
    joined = np.arange(len(names))

    def root(number: int) -> int:
        while joined[number] != number:
            joined[number] = joined[joined[number]]
            number = int(joined[number])
        return number

    for first, second in near_duplicates(pictures):
        one, other = sorted((root(int(product[first])), root(int(product[second]))))
        joined[other] = one
    roots = np.array([root(number) for number in range(len(names))], dtype=np.int64)
    return roots[product]


def near_duplicates(pictures: Pixels) -> list[tuple[int, int]]:
    """Pairs of photos that are the same picture except for scale, compression and slight differences in brightness.

    Their thumbnails differ by few levels and are correlated. A difference hash would not do: on a plain background the
    signs of the gradients depend on compression, so copies of a photo get different hashes.
    """
    if len(pictures) < 2:
        return []
    thumbs = np.stack([_thumb(picture).ravel() for picture in pictures])
    centred = thumbs - thumbs.mean(axis=1, keepdims=True)
    spread = np.linalg.norm(centred, axis=1)
    pairs = []
    for place in range(len(pictures) - 1):
        rest = slice(place + 1, None)
        # |a - b|^2 <= 2 (1 - correlation) |a| |b|: equivalent for equal norms, and defined for flat photos
        apart = spread[rest] ** 2 + spread[place] ** 2 - 2 * (centred[rest] @ centred[place])
        alike = apart <= 2 * (1 - THUMB_CORRELATION) * spread[rest] * spread[place]
        for other in (np.flatnonzero(alike) + place + 1).tolist():
            if float(np.sqrt(np.square(thumbs[place] - thumbs[other]).mean())) <= THUMB_ERROR:
                pairs.append((place, other))
    return pairs


def _thumb(picture: Pixels) -> NDArray[np.float32]:
    return cv2.resize(picture, (THUMB_SIDE, THUMB_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
