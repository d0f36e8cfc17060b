"""Colour profiles: pictures in Display P3, Adobe RGB, ProPhoto and the like become sRGB.

Little CMS converts, through Pillow. A profile that is sRGB within `TOLERANCE` needs no conversion; that is found out
once for each profile, so most pictures cost nothing.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

TOLERANCE = 3  # of 255: profiles called sRGB differ by rounding
MAX_PROFILE = 4 * 2**20  # bytes; larger ones are ignored
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # Pillow's modes by the profile's colour space


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An image of mode RGB, L or CMYK as sRGB; unchanged if its profile is sRGB, damaged or for another mode."""
    transform = _transform(profile, image.mode) if profile and len(profile) <= MAX_PROFILE else None
    if transform is None:
        return image
    from PIL import ImageCms

    return ImageCms.applyTransform(image, transform) or image


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> Any | None:
    """Little CMS's transform from a profile to sRGB; None if none is needed or possible."""
    from PIL import ImageCms

    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if MODES.get(given.profile.xcolor_space.strip()) != mode:
            return None
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        transform = ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), mode, "RGB", intent)
        return transform if mode == "CMYK" or _changes_colours(transform, mode) else None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # a damaged profile
        return None


def _changes_colours(transform: Any, mode: str) -> bool:
    from PIL import ImageCms

    steps = np.linspace(0, 255, 6 if mode == "RGB" else 216).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3) if mode == "RGB" else steps[None]
    probe = Image.fromarray(grid)
    converted = np.asarray(ImageCms.applyTransform(probe, transform), dtype=np.int16)
    return int(np.abs(converted - np.asarray(probe.convert("RGB"), dtype=np.int16)).max()) > TOLERANCE
