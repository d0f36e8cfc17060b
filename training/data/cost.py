"""The memory that decoding an image takes, estimated from its header before any pixel is decoded.

The figures per pixel are those of Pillow and libjpeg-turbo: Pillow keeps one byte for a pixel of modes 1, L and P, two
for 16-bit grey and four for all others; its WebP decoder holds the picture four times, and those of AVIF and HEIC are
counted as such; a JPEG with several scans
(all progressive ones) holds two bytes for each coefficient, whatever size it is decoded at.
"""

from __future__ import annotations

from PIL import Image

from training.data.decode import svg_side
from training.data.opening import opened
from training.data.strips import STRIP_PIXELS, reduction
from training.sketches.raster import OVERSAMPLING
from training.sketches.svg import MAX_ELEMENTS, is_svg

BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
FRAMES_OF = {"WEBP": 4, "AVIF": 4, "HEIF": 4}  # copies of the picture that a decoder holds
STRIP_BYTES_PER_PIXEL = 40  # of a strip while it is converted: 16-bit values in double precision, or composited alpha
ROWS_PER_STRIP, TILE_WIDTH, TILE_HEIGHT = 278, 322, 323  # tags of TIFF 6.0
HEADERS_OF_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
SVG_BYTES = 2_000 * MAX_ELEMENTS  # of its elements and points while it is read
SEQUENTIAL = frozenset({0xC0, 0xC1, 0xC9})


def decoding_bytes(data: bytes, at_least: int | None = None) -> int:
    """Bytes that `decode_image(data, at_least=at_least)` allocates at most, its result included; 0 if it cannot tell.

    An image whose header cannot be read costs nothing: decoding refuses it at once.
    """
    if data[:3] == b"\xff\xd8\xff" and (jpeg := _jpeg_bytes(data, at_least)) is not None:
        return jpeg
    if is_svg(data):
        return SVG_BYTES + (OVERSAMPLING**2 + 4) * svg_side(at_least) ** 2
    try:
        with opened(data) as image:
            return _pillow_bytes(image, at_least)
    except Exception:  # noqa: BLE001 - Pillow's plugins raise anything on damaged files; decoding names the fault
        return 0


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that the header declares; None if it cannot be read."""
    try:
        with opened(data) as image:
            return image.size
    except Exception:  # noqa: BLE001 - as above
        return None


def result_bytes(width: int, height: int, factor: int) -> int:
    """The RGB result, and its copy that is turned upright."""
    return 2 * 3 * -(-width // factor) * -(-height // factor)


def _pillow_bytes(image: Image.Image, at_least: int | None) -> int:
    width, height = image.size
    pixels = width * height
    size = BYTES_PER_PIXEL.get(image.mode, 4)
    loaded = pixels * size
    if image.format in FRAMES_OF:
        loaded *= FRAMES_OF[image.format]
    elif any(tile[0] == "libtiff" for tile in image.tile):  # type: ignore[attr-defined]
        loaded += _tiff_strip_bytes(image, size)
    return (
        loaded
        + STRIP_BYTES_PER_PIXEL * min(STRIP_PIXELS, pixels)
        + result_bytes(width, height, reduction(width, height, at_least))
    )


def _tiff_strip_bytes(image: Image.Image, size: int) -> int:
    """libtiff decodes one whole strip or tile at a time; a file may have a single one."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    width, height = image.size
    if TILE_WIDTH in tags:
        return int(tags[TILE_WIDTH]) * int(tags.get(TILE_HEIGHT, height)) * size
    return min(int(tags.get(ROWS_PER_STRIP, height)), height) * width * size


def _jpeg_bytes(data: bytes, at_least: int | None) -> int | None:
    """The estimate for a JPEG; None if its header is damaged."""
    frame = None
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes may precede a marker
            at += 1
            continue
        if marker in HEADERS_OF_FRAMES:
            frame = at
        elif marker == 0xDA:
            return _frame_bytes(data, frame, data[at + 4 : at + 5], at_least) if frame else None
        at += 2 if marker == 0x01 or 0xD0 <= marker <= 0xD8 else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _frame_bytes(data: bytes, at: int, scanned: bytes, at_least: int | None) -> int | None:
    """The estimate from a frame header (at the offset) and the number of components in the first scan."""
    height, width = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
    components = data[at + 9]
    sampling = [data[at + 11 + 3 * n] for n in range(components) if at + 11 + 3 * n < len(data)]
    if not sampling or not scanned:
        return None
    factor = 1
    if at_least:
        factor = next((n for n in (8, 4, 2) if min(width, height) // n >= at_least), 1)
    # Decoding writes RGB; what libjpeg-turbo leaves to Pillow takes four bytes per pixel more.
    result = result_bytes(width, height, factor) + 4 * -(-width // factor) * -(-height // factor)
    if data[at + 1] in SEQUENTIAL and scanned[0] == components:
        return result
    across, down = max(s >> 4 for s in sampling), max(s & 15 for s in sampling)
    # Sides are padded to whole blocks of 8 x 8 coefficients in each component.
    coefficients = sum(
        64 * -(-width * (s >> 4) // (8 * max(across, 1))) * -(-height * (s & 15) // (8 * max(down, 1)))
        for s in sampling
    )
    return 2 * coefficients + result
