"""Grey pictures of 16 or 32 bits or floating point as 8 bits: which value is white follows from type, tags and content.

* 16-bit integers: 65535, or the largest value in the file's tags;
* 32-bit integers and floating point: the largest value in the tags, otherwise the first of 1 (floating point only), 255
  and 65535 that no value exceeds. Other values are refused, because nothing tells which is white.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.errors import ImageError

MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
PHOTOMETRIC, MAX_SAMPLE, SMIN_SAMPLE, SMAX_SAMPLE = 262, 281, 340, 341  # TIFF's tags
WHITE_IS_ZERO = 0
OVERSHOOT = 2.0  # resampling brings values of 0..1 a little above 1; a picture of 0..255 is not that dark
UNDERSHOOT = 0.05  # the same below 0, as a share of the largest value
ROWS = 256  # read at a time


def grey_converter(image: Image.Image) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    """A function from values `(H, W)` of a loaded image of one of `MODES`, or of a part of it, to uint8.

    Raises:
        ImageError: the range of the values is unknown, or they are not numbers.
    """
    tags = getattr(image, "tag_v2", {})
    black, white = _range(image, tags)
    is_negative = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO

    def to_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
        scaled = (values.astype(np.float32) - np.float32(black)) * np.float32(255.0 / (white - black))
        out: NDArray[np.uint8] = np.clip(scaled, 0, 255).round().astype(np.uint8)
        return ~out if is_negative else out

    return to_8_bits


def _range(image: Image.Image, tags: Mapping[int, Any]) -> tuple[float, float]:
    tagged = _tagged_range(tags)
    if tagged is not None:
        return tagged
    if image.mode.startswith("I;16"):
        return 0.0, 65535.0
    low, high = _extrema(image)
    if not np.isfinite(low + high):
        raise ImageError("the grey values include NaN or infinity; save the picture as 8 or 16 bits")
    is_float = image.mode == "F"
    if low >= (-UNDERSHOOT * high if is_float else 0):
        for limit, white in [*([(OVERSHOOT, 1.0)] if is_float else []), (255.0, 255.0), (65535.0, 65535.0)]:
            if high <= limit:
                return 0.0, white
    raise ImageError(
        f"the grey values range from {low:g} to {high:g}, and nothing tells which is white; "
        "save the picture as 8 or 16 bits"
    )


def _extrema(image: Image.Image) -> tuple[float, float]:
    """Smallest and largest value, NaN if one is NaN; in strips, so that no copy of the whole image exists."""
    width, height = image.size
    found = []
    for top in range(0, height, ROWS):
        part = np.asarray(image.crop((0, top, width, min(top + ROWS, height))))
        found.append((float(part.min()), float(part.max())))
    return float(np.min([low for low, _ in found])), float(np.max([high for _, high in found]))


def _tagged_range(tags: Mapping[int, Any]) -> tuple[float, float] | None:
    """Black and white according to a TIFF's tags."""
    black, white = (_number(tags.get(tag)) for tag in (SMIN_SAMPLE, SMAX_SAMPLE))
    white = white if white is not None else _number(tags.get(MAX_SAMPLE))
    black = black or 0.0
    return (black, white) if white is not None and white > black else None


def _number(value: Any) -> float | None:
    while isinstance(value, tuple) and value:
        value = value[0]
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if np.isfinite(number) else None
