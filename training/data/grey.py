"""Grey pictures of 16 or 32 bits or floating point as 8 bits: which value is white follows from type, tags and content.

* 16-bit integers: 65535, or the largest value in the file's tags;
* 32-bit integers and floating point: the largest value in the tags, otherwise the first of 1 (floating point only), 255
  and 65535 that no value exceeds. Other values are refused, because nothing tells which is white.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import ImageError

MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
PHOTOMETRIC, MAX_SAMPLE, SMIN_SAMPLE, SMAX_SAMPLE = 262, 281, 340, 341  # TIFF's tags
WHITE_IS_ZERO = 0
OVERSHOOT = 2.0  # resampling brings values of 0..1 a little above 1; a picture of 0..255 is not that dark
UNDERSHOOT = 0.05  # the same below 0, as a share of the largest value
ROWS = 256  # converted at a time, so that no wider copy of the whole picture exists


def grey_to_8_bits(values: NDArray[Any], tags: Mapping[int, Any]) -> NDArray[np.uint8]:
    """Values `(H, W)` of an image of one of `MODES` as uint8.

    Args:
        tags: those of a TIFF file; empty for another format.

    Raises:
        ImageError: the range of the values is unknown, or they are not numbers.
    """
    black, white = _range(values, tags)
    out = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), ROWS):
        part = values[start : start + ROWS].astype(np.float32)
        scaled = (part - np.float32(black)) * np.float32(255.0 / (white - black))
        out[start : start + ROWS] = np.clip(scaled, 0, 255).round()
    is_negative = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    return np.subtract(255, out, dtype=np.uint8) if is_negative else out


def _range(values: NDArray[Any], tags: Mapping[int, Any]) -> tuple[float, float]:
    tagged = _tagged_range(tags)
    if tagged is not None:
        return tagged
    if values.dtype.itemsize == 2 and values.dtype.kind == "u":
        return 0.0, 65535.0
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low + high):
        raise ImageError("the grey values include NaN or infinity; save the picture as 8 or 16 bits")
    is_float = values.dtype.kind == "f"
    if low >= (-UNDERSHOOT * high if is_float else 0):
        for limit, white in [*([(OVERSHOOT, 1.0)] if is_float else []), (255.0, 255.0), (65535.0, 65535.0)]:
            if high <= limit:
                return 0.0, white
    raise ImageError(
        f"the grey values range from {low:g} to {high:g}, and nothing tells which is white; "
        "save the picture as 8 or 16 bits"
    )


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
