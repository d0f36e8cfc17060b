"""Convert a large decoded image to 8-bit RGB in strips, so that only the strip is in memory at full precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STRIP_PIXELS = 250_000  # converted at a time
REDUCE_ABOVE = 2_000_000  # pixels; smaller images are never reduced
REDUCING_GAP = 3  # an image reduced to this multiple of the size needed is resized as well as the original (Pillow)
LARGE_RESULT = 4_000_000  # pixels; a result that would still be larger is reduced to just the size needed


def reduction(width: int, height: int, at_least: int | None) -> int:
    """The whole number that both sides of an image can be divided by for a caller that needs `at_least` pixels."""
    if at_least is None or width * height <= REDUCE_ABOVE:
        return 1
    factor = max(1, min(width, height) // (REDUCING_GAP * at_least))
    if width * height > LARGE_RESULT * factor**2:
        factor = max(1, min(width, height) // at_least)
    return factor


def rgb_in_strips(image: Image.Image, factor: int, to_rgb: Callable[[Image.Image], Image.Image]) -> NDArray[np.uint8]:
    """The pixels `(ceil(H / factor), ceil(W / factor), 3)` of a loaded image; each is the mean of its square.

    Args:
        to_rgb: converts one strip to mode RGB, pixel by pixel.
    """
    width, height = image.size
    out = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    rows = max(1, STRIP_PIXELS // (width * factor)) * factor
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        strip.info = image.info  # the transparent colour of a palette
        pixels = to_rgb(strip)
        if factor > 1:
            pixels = pixels.reduce(factor)
        out[top // factor : top // factor + pixels.height] = np.asarray(pixels)
    return out
