"""Small JPEGs of catalogue images."""

from __future__ import annotations

import io

from PIL import Image

from training.data.decode import ImageLimits, decode_image

MAX_WIDTH = 2048
QUALITY = 85


def thumbnail(data: bytes, width: int, limits: ImageLimits) -> bytes:
    """An upright JPEG at most `width` pixels wide and `2 * width` high, never enlarged.

    Raises:
        ImageError: the bytes are not an image within the limits.
    """
    image = Image.fromarray(decode_image(data, at_least=width, limits=limits).pixels)
    image.thumbnail((width, 2 * width), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()
