"""Decode image files safely, at no larger size than needed.

JPEGs are decoded at a reduced DCT size (1/8, 1/4, 1/2) if the caller needs fewer pixels; Pillow decodes all other
formats. The size in bytes and pixels is checked from the header before any pixel is decoded. Imports neither torch nor
the catalogue, so that reading processes start fast.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from training.data.strips import reduction, rgb_in_strips
from training.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class ImageLimits:
    """Maximum size of an image file in bytes and pixels."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 64_000_000

    def check_bytes(self, count: int) -> None:
        if count == 0:
            raise ImageError("the file is empty (0 bytes)")
        if count > self.max_bytes:
            raise ImageError(f"the file has {count} bytes; the limit is {self.max_bytes}")

    def check_pixels(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise ImageError(f"the image is {width} x {height} pixels; it needs at least 1 x 1")
        if width * height > self.max_pixels:
            raise ImageError(f"the image is {width} x {height} pixels; the limit is {self.max_pixels} pixels in total")


class Decoded(NamedTuple):
    """Pixels `(H, W, 3)` uint8 sRGB, composited on white, and the full upright size declared by the file."""

    pixels: NDArray[np.uint8]
    width: int
    height: int


def decode_image(data: bytes, *, at_least: int | None = None, limits: ImageLimits | None = None) -> Decoded:
    """Decode an image file, upright by its EXIF orientation, as 8-bit RGB.

    Args:
        data: the file's bytes: JPEG, PNG, WebP, BMP, GIF (first frame) or TIFF.
        at_least: the minimum height and width that the caller needs; a JPEG may be decoded at a reduced size that is
            no smaller than this (unless the file itself is). None decodes at full size.
        limits: maximum bytes and pixels, checked before decoding.

    Raises:
        ImageError: the data is empty, too large, in an unsupported format, truncated or corrupt.
    """
    limits = limits or ImageLimits()
    limits.check_bytes(len(data))
    if data[:3] == b"\xff\xd8\xff":
        decoded = _decode_jpeg(data, at_least, limits)
        if decoded is not None:
            return decoded
    return _decode_with_pillow(data, at_least, limits)


def decode_alpha(data: bytes) -> NDArray[np.uint8] | None:
    """The upright alpha channel `(H, W)` uint8 of a file that `decode_image` accepts; None if it has none."""
    if data[:3] == b"\xff\xd8\xff":
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.mode not in ALPHA_MODES and "transparency" not in image.info:
                return None
            image.load()
            upright = ImageOps.exif_transpose(image)
            return np.asarray(upright.convert("RGBA").getchannel("A"), dtype=np.uint8)


def _decode_jpeg(data: bytes, at_least: int | None, limits: ImageLimits) -> Decoded | None:
    """Decode with libjpeg-turbo; None for what is left to Pillow (CMYK, rare colour spaces, damaged files)."""
    try:
        height, width, colourspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    limits.check_pixels(width, height)
    if colourspace not in ("YCbCr", "Gray", "RGB"):
        return None
    smallest = {"min_height": at_least, "min_width": at_least, "min_factor": 1} if at_least else {}
    try:
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True, **smallest)
    except ValueError:
        return None
    orientation = _jpeg_orientation(data)
    if orientation == 1:
        return Decoded(pixels, width, height)
    if orientation >= 5:
        width, height = height, width
    return Decoded(_turn_upright(pixels, orientation), width, height)


def _turn_upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation of 2..8 on `(H, W, 3)` pixels (TIFF 6.0, tag 274)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG, read from the segments before the first scan; 1 (upright) if it has none."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            break
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return _exif_orientation(data[at + 10 : at + 2 + length])
        at += 2 + length
    return 1


def _exif_orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, offset)
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == EXIF_ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _decode_with_pillow(data: bytes, at_least: int | None, limits: ImageLimits) -> Decoded:
    with warnings.catch_warnings():
        # Our pixel limit replaces Pillow's decompression bomb warning; other warnings concern unused metadata.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                limits.check_pixels(width, height)
                if at_least:
                    image.draft("", (at_least, at_least))  # JPEGs only
                image.load()
                orientation = image.getexif().get(EXIF_ORIENTATION, 1)
                factor = reduction(*image.size, at_least)
                pixels = _turn_upright(rgb_in_strips(image, factor, _converter(image)), orientation)
        except UnidentifiedImageError as exc:
            raise ImageError(_describe_unknown(data)) from exc
        except Image.DecompressionBombError as exc:
            pixels_found = next(iter(re.findall(r"\d+", str(exc))), "too many")
            raise ImageError(f"the image has {pixels_found} pixels; the limit is {limits.max_pixels}") from exc
        except (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError, TypeError, KeyError) as exc:
            # Pillow's plugins raise all of these exceptions on damaged files.
            if isinstance(exc, ImageError):
                raise
            raise ImageError(f"the image is truncated or corrupt ({exc})") from exc
        except MemoryError as exc:
            raise ImageError("the image needs more memory than is available") from exc
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return Decoded(pixels, width, height)


def _converter(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """A function that converts strips of an image to 8-bit RGB; what depends on the whole image is found here."""
    scale = 1.0
    if image.mode == "F" and image.getextrema()[1] <= 1.0:  # type: ignore[operator]
        scale = 65535.0
    return partial(_to_rgb, scale=scale)


def _to_rgb(image: Image.Image, *, scale: float) -> Image.Image:
    """Convert to 8-bit RGB: 16-bit values are scaled, palettes and CMYK converted, alpha composited on white."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        grey = np.asarray(image, dtype=np.float64) * scale  # one strip of the image
        return Image.fromarray(np.clip(grey / 257.0, 0, 255).round().astype(np.uint8), "L").convert("RGB")
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _describe_unknown(data: bytes) -> str:
    accepted = "JPEG, PNG, WebP, BMP, GIF or TIFF"
    if b"<svg" in data[:512].lower():
        return f"the file is SVG; expected {accepted}"
    try:
        data[:512].decode("utf-8")
    except UnicodeDecodeError:
        return f"the file is not a supported image; expected {accepted}"
    return f"the file holds text, not an image; expected {accepted}"
