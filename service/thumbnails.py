"""Small JPEGs of catalogue images."""

from __future__ import annotations

import io

from PIL import Image

from indexer.decoding import MemoryBudget, decoded
from training.data.decode import ImageLimits

MAX_WIDTH = 2048
QUALITY = 85


def thumbnail(data: bytes, width: int, limits: ImageLimits, memory: MemoryBudget) -> bytes:
    """An upright JPEG at most `width` pixels wide and `2 * width` high, never enlarged.

    Raises:
        ImageError: the bytes are not an image within the limits.
        BusyError: other images take the memory at the moment.
    """
    with decoded(data, at_least=width, limits=limits, memory=memory) as found:
        image = Image.fromarray(found.pixels)
        del found  # its memory is free again after the block
        image.thumbnail((width, 2 * width), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()
