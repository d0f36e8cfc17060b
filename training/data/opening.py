"""Open an image file with Pillow, or say what the file is instead."""

from __future__ import annotations

import ctypes
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from PIL import Image, PngImagePlugin, features

from training.errors import ImageError

ACCEPTED = "JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC"
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
PNG_START = b"\x89PNG\r\n\x1a\n"
KNOWN_STARTS = (b"\xff\xd8\xff", PNG_START, b"GIF8")
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
STARTS = {
    b"%PDF": "PDF", b"PK\x03\x04": "ZIP", b"8BPS": "Photoshop", b"\x1f\x8b": "gzip", b"\0\0\x01\0": "an icon",
    b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000",
}  # fmt: skip
BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")

Image.MAX_IMAGE_PIXELS = None  # `ImageLimits` takes its place, whose limit can be raised
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints Pillow's remarks on damaged files


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """The header of an image file; Pillow reads the pixels when they are needed.

    Raises:
        ImageError: the file needs a library that is not installed.
        PIL.UnidentifiedImageError: the file is none of the accepted formats; see `describe_unknown`.
    """
    if data.startswith(TIFF_STARTS):
        _silence_libtiff()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata that nothing uses
        try:
            image = Image.open(io.BytesIO(data), formats=_formats(data))
        except ValueError:
            if not data.startswith(PNG_START):
                raise
            image = Image.open(io.BytesIO(_without_large_texts(data)), formats=("PNG",))
        with image:
            yield image


def _formats(data: bytes) -> tuple[str, ...]:
    brands = _brands(data)
    if any(brand in AVIF_BRANDS for brand in brands):
        if not features.check("avif"):
            raise ImageError("the file is AVIF, which this installation of Pillow cannot read; update Pillow")
        return ("AVIF",)
    if any(brand in HEIC_BRANDS for brand in brands):
        _register_heif()
        return ("HEIF",)
    return FORMATS


def _brands(data: bytes) -> list[bytes]:
    """The brands of an ISO media file, best first: what HEIC, AVIF and MP4 files say that they are."""
    if data[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(data[:4], "big"), 256)
    return [data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))]


@lru_cache(maxsize=1)
def _register_heif() -> None:
    try:
        import pillow_heif
    except ImportError as exc:
        remedy = "run `pip install 'nitamono[heif]'`, or convert the file to JPEG"
        raise ImageError(f"the file is HEIC, which needs the package 'pillow-heif'; {remedy}") from exc
    pillow_heif.register_heif_opener(thumbnails=False)


def _without_large_texts(data: bytes) -> bytes:
    """A PNG file without its compressed or large texts, of which Pillow reads a limited amount."""
    kept, at = [PNG_START], len(PNG_START)
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        is_large = end - at > PngImagePlugin.MAX_TEXT_CHUNK
        is_compressed = kind == b"zTXt" or (kind == b"iTXt" and data[at + 8 : end].partition(b"\0")[2][:1] == b"\1")
        if not (is_compressed or (is_large and kind in (b"tEXt", b"iTXt"))):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


@lru_cache(maxsize=1)
def _silence_libtiff() -> None:
    """Stop libtiff from printing its remarks on damaged files: Pillow raises what matters."""
    try:
        mapped = re.search(r"/\S*libtiff\S*", Path("/proc/self/maps").read_text())
        library = ctypes.CDLL(mapped[0]) if mapped else None
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)
    except (OSError, AttributeError):  # another system, where libtiff keeps its voice
        return


def describe_unknown(data: bytes) -> str:
    """Why a file is not one of the accepted formats."""
    name = next((name for start, name in STARTS.items() if data.startswith(start)), None)
    if brands := _brands(data):
        name = "AVIF" if brands[0] in AVIF_BRANDS else "HEIC" if brands[0] in HEIC_BRANDS else "a video"
    if b"<svg" in data[:512].lower():
        name = "SVG"
    if name is not None:
        return f"the file is {name}, not a supported image; expected {ACCEPTED}"
    if data.startswith(KNOWN_STARTS) or (data.startswith(b"RIFF") and data[8:12] == b"WEBP"):
        return "the image is truncated or corrupt (its header cannot be read)"
    if data.startswith(TIFF_STARTS):
        return "the file is a TIFF or camera file of a kind that cannot be read; save it as 8 or 16 bits, or as JPEG"
    if BINARY.search(data[:512]) or not _is_utf8(data[:512]):
        return f"the file is not a supported image; expected {ACCEPTED}"
    return f"the file holds text, not an image; expected {ACCEPTED}"


def _is_utf8(start: bytes) -> bool:
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as exc:
        return exc.start > len(start) - 4 and exc.reason == "unexpected end of data"
    return True
