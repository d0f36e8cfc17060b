"""Decode image files safely, at no larger size than needed.

JPEGs are decoded at a reduced DCT size (1/8, 1/4, 1/2) if the caller needs fewer pixels; Pillow decodes all other
formats. The size in bytes and pixels is checked from the header before any pixel is decoded. Imports neither torch nor
the catalogue, so that reading processes start fast.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from training.data.colour import to_srgb
from training.data.grey import MODES as GREY_MODES
from training.data.grey import grey_converter
from training.data.jpeg import EXIF_ORIENTATION, START, read_header, with_end
from training.data.opening import describe_unknown, opened
from training.data.strips import STRIP_PIXELS, reduction, rgb_in_strips
from training.data.texts import visible
from training.errors import DrawingError, ImageError, SettingError
from training.sketches.raster import draw_strokes
from training.sketches.strokes import Strokes
from training.sketches.svg import is_svg, read_svg

ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
SVG_SIDE, LEAST_SVG_SIDE = 1024, 16  # pixels
LINE_WIDTH = 1 / 64  # of a drawing's lines, as a fraction of its side
MAX_BYTES, MAX_PIXELS = "NITAMONO_MAX_UPLOAD_BYTES", "NITAMONO_MAX_PIXELS"
# Pillow's plugins raise all of these on damaged files.
DAMAGE = (OSError, SyntaxError, ValueError, struct.error, EOFError, IndexError, TypeError, KeyError, RuntimeError)


def _from_environment(name: str, default: int, least: int) -> int:
    text = os.environ.get(name)
    if text is None:
        return default
    if not text.strip().isdecimal() or int(text) < least:
        raise SettingError(f"{name}: {text!r} is not a whole number of at least {least}")
    return int(text)


@dataclass(frozen=True)
class ImageLimits:
    """Maximum size of an image file in bytes and pixels; the settings of the same names decide where nothing is given.

    Raises:
        SettingError: a setting is not a number.
    """

    max_bytes: int = field(default_factory=lambda: _from_environment(MAX_BYTES, 32 * 2**20, 1024))
    max_pixels: int = field(default_factory=lambda: _from_environment(MAX_PIXELS, 64_000_000, 4096))

    def check_bytes(self, count: int) -> None:
        if count == 0:
            raise ImageError("the file is empty (0 bytes)")
        if count > self.max_bytes:
            raise ImageError(f"the file has {count} bytes; the limit is {self.max_bytes} (set {MAX_BYTES} to raise it)")

    def check_pixels(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise ImageError(f"the image is {width} x {height} pixels; it needs at least 1 x 1")
        if width * height > self.max_pixels:
            raise ImageError(
                f"the image is {width} x {height} pixels; the limit is {self.max_pixels} pixels in total "
                f"(set {MAX_PIXELS} to raise it)"
            )


class Decoded(NamedTuple):
    """Pixels `(H, W, 3)` uint8 sRGB, composited on white, and the full upright size declared by the file.

    A drawing also has its strokes, see `training.sketches`. Its pixels show them as black lines on a white square.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    strokes: Strokes | None = None


def decode_image(data: bytes, *, at_least: int | None = None, limits: ImageLimits | None = None) -> Decoded:
    """Decode an image file, upright by its EXIF orientation, as 8-bit sRGB, or the drawing of an SVG file.

    Args:
        data: the file's bytes: JPEG, PNG, WebP, BMP, GIF (first frame), TIFF, AVIF, SVG (its outlines as strokes) or,
            with the extra `heif`, HEIC.
        at_least: the minimum height and width that the caller needs; a JPEG may be decoded at a reduced size that is
            no smaller than this (unless the file itself is). None decodes at full size.
        limits: maximum bytes and pixels, checked before decoding; None for those of the settings.

    Raises:
        ImageError: the data is empty, too large, in an unsupported format, truncated or corrupt.
    """
    limits = limits or ImageLimits()
    limits.check_bytes(len(data))
    if data.startswith(START):
        decoded = _decode_jpeg(data, at_least, limits)
        if decoded is not None:
            return decoded
        data = _completed_cmyk(data)
    if is_svg(data):
        return _decode_svg(data, at_least)
    return _decode_with_pillow(data, at_least, limits)


def decode_alpha(data: bytes) -> NDArray[np.uint8] | None:
    """The upright alpha channel `(H, W)` uint8 of a file that `decode_image` accepts; None if it has none."""
    if data.startswith(START):
        return None
    with opened(data) as image:
        if image.mode not in ALPHA_MODES and "transparency" not in image.info:
            return None
        image.load()
        return np.asarray(_upright(image).convert("RGBA").getchannel("A"), dtype=np.uint8)


def _decode_svg(data: bytes, at_least: int | None) -> Decoded:
    try:
        strokes = read_svg(data)
    except DrawingError as exc:
        raise ImageError(f"the SVG file {exc}") from exc
    side = svg_side(at_least)
    lines = draw_strokes(strokes, side, width=max(1.0, LINE_WIDTH * side))
    return Decoded(np.repeat(lines[:, :, None], 3, axis=2), SVG_SIDE, SVG_SIDE, strokes)


def svg_side(at_least: int | None) -> int:
    """Side in pixels of the square that a drawing is shown in."""
    return min(SVG_SIDE if at_least is None else max(at_least, LEAST_SVG_SIDE), SVG_SIDE)


def _decode_jpeg(data: bytes, at_least: int | None, limits: ImageLimits) -> Decoded | None:
    """Decode with libjpeg-turbo; None for what is left to Pillow (CMYK, rare colour spaces, damaged files)."""
    try:
        height, width, colourspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    limits.check_pixels(width, height)
    if colourspace not in ("YCbCr", "Gray", "RGB"):
        return None
    pixels = _jpeg_pixels(data, at_least)
    if pixels is None:
        return None
    orientation, profile = read_header(data)
    if profile is not None:
        pixels = _pixels_in_srgb(pixels, profile, is_grey=colourspace == "Gray")
    if orientation is None:
        orientation = _pillows_orientation(data)
    if orientation == 1:
        return Decoded(pixels, width, height)
    if orientation >= 5:
        width, height = height, width
    return Decoded(_turn_upright(pixels, orientation), width, height)


def _jpeg_pixels(data: bytes, at_least: int | None) -> NDArray[np.uint8] | None:
    """The pixels of a whole file, or of one that lacks only its end marker; None for a damaged one."""
    smallest = {"min_height": at_least, "min_width": at_least, "min_factor": 1} if at_least else {}
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True, **smallest)
        return pixels
    except ValueError:
        completed = with_end(data)
    return None if completed is None else _jpeg_pixels(completed, at_least)


def _completed_cmyk(data: bytes) -> bytes:
    """The data of a CMYK file, with the end marker if it lacks nothing else: Pillow cannot tell what is missing."""
    completed = with_end(data)
    try:
        if completed is not None:
            simplejpeg.decode_jpeg(completed, colorspace="CMYK", strict=True)
            return completed
    except ValueError:
        pass
    return data


def _pixels_in_srgb(pixels: NDArray[np.uint8], profile: bytes, *, is_grey: bool) -> NDArray[np.uint8]:
    """Convert pixels in place, in strips, so that no second copy of the whole image exists."""
    rows = max(1, STRIP_PIXELS // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        strip = pixels[top : top + rows]
        image = Image.fromarray(np.ascontiguousarray(strip[..., 0]) if is_grey else strip)
        converted = to_srgb(image, profile)
        if converted is image:
            break
        strip[:] = np.asarray(converted, dtype=np.uint8)
    return pixels


def _turn_upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation of 2..8 on `(H, W, 3)` pixels (TIFF 6.0, tag 274)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _pillows_orientation(data: bytes) -> int:
    """The orientation of a JPEG with an unusual header."""
    try:
        with opened(data) as image:
            return _orientation(image)
    except DAMAGE:
        return 1


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) if it makes no sense, which is no reason to refuse an image."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except DAMAGE:
        return 1
    return orientation if orientation in range(1, 9) else 1


def _upright(image: Image.Image) -> Image.Image:
    """The image turned by its EXIF orientation; metadata that cannot be read is no reason to refuse the image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ImageOps.exif_transpose(image)
        except DAMAGE:
            return image


def _decode_with_pillow(data: bytes, at_least: int | None, limits: ImageLimits) -> Decoded:
    try:
        with opened(data) as image:
            width, height = image.size
            limits.check_pixels(width, height)
            if at_least:
                image.draft("", (at_least, at_least))  # JPEGs only
            image.load()
            orientation = _orientation(image)
            factor = reduction(*image.size, at_least)
            pixels = _turn_upright(rgb_in_strips(image, factor, _converter(image)), orientation)
    except UnidentifiedImageError as exc:
        raise ImageError(describe_unknown(data)) from exc
    except ImageError:
        raise
    except DAMAGE as exc:
        raise ImageError(f"the image is truncated or corrupt ({visible(str(exc))})") from exc
    except MemoryError as exc:
        raise ImageError("the image needs more memory than is available") from exc
    if orientation >= 5:
        width, height = height, width
    return Decoded(pixels, width, height)


def _converter(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """A function that converts strips of an image to 8-bit sRGB; what depends on the whole image is found here."""
    profile = image.info.get("icc_profile")
    if image.mode not in GREY_MODES:
        return partial(_to_rgb, profile=profile)
    to_8_bits = grey_converter(image)
    return lambda strip: to_srgb(Image.fromarray(to_8_bits(np.asarray(strip))), profile).convert("RGB")


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to 8-bit sRGB: palettes, CMYK and profiles are converted, alpha is composited on white."""
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if profile is not None:
            colours = to_srgb(rgba.convert("RGB"), profile)
            colours.putalpha(rgba.getchannel("A"))
            rgba = colours
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return to_srgb(image, profile).convert("RGB")
