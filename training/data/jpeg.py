"""The header of a JPEG file: orientation and colour profile without Pillow, which takes longer than a small decoding.

A header that is anything but plain is left to Pillow, so that both give the same orientation (a test compares them).
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

START = b"\xff\xd8\xff"
END = b"\xff\xd9"
EXIF_ORIENTATION = 0x0112
SHORT = 3  # TIFF's type of an orientation
COEFFICIENTS = 64  # of a block

_PROGRESSIVE_FRAME, _SCAN, _APP1, _APP2 = 0xC2, 0xDA, 0xE1, 0xE2
_SKIPPED = frozenset([*range(0xC0, 0xC8), *range(0xC9, 0xD0), *range(0xDB, 0xE1), *range(0xE3, 0xF0), 0xFE])
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)


class JpegHeader(NamedTuple):
    """What the segments before the first scan say.

    Args:
        orientation: the EXIF orientation, 1 to 8; None if only Pillow can tell.
        profile: the ICC profile; None without one.
    """

    orientation: int | None
    profile: bytes | None


def read_header(data: bytes) -> JpegHeader:
    """Read the segments before the first scan."""
    exif: list[bytes] = []
    profile: list[bytes] = []
    is_plain = in_xmp = False
    at = 2
    try:
        while data[at] == 0xFF:
            marker = data[at + 1]
            end = at + 2 + (data[at + 2] << 8) + data[at + 3]
            if marker in _SKIPPED:
                at = end
                continue
            if marker == 0xFF:  # a fill byte
                at += 1
                continue
            if marker != _APP1 and marker != _APP2:
                is_plain = marker == _SCAN
                break
            if marker == _APP2:
                if data.startswith(b"ICC_PROFILE\0", at + 4):
                    profile.append(data[at + 4 : end])
            elif data.startswith(b"Exif\0\0", at + 4):
                exif.append(data[at + 10 : end])
            elif data.startswith(b"http://ns.adobe.com/xap/1.0/\0", at + 4):
                in_xmp = in_xmp or b"tiff:Orientation" in data[at:end]
            at = end
    except IndexError:  # no scan
        pass
    orientation = _orientation(exif[0]) if exif else 0
    if not is_plain or len(exif) > 1 or (in_xmp and not orientation):
        orientation = None
    return JpegHeader(1 if orientation == 0 else orientation, _joined(profile) if profile else None)


def _joined(parts: list[bytes]) -> bytes | None:
    """A profile from its numbered parts."""
    return b"".join(part[14:] for part in sorted(parts)) or None


def _orientation(tiff: bytes) -> int | None:
    """The orientation in EXIF data: 0 without one, 1 for a number that means nothing, None for unusual data."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (offset,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, offset)
        entries = struct.iter_unpack(order + "HHIHH", tiff[offset + 2 : offset + 2 + 12 * count])
        found = [entry for entry in entries if entry[0] == EXIF_ORIENTATION]
    except struct.error:
        return None
    if len(tiff) < offset + 2 + 12 * count:
        return None
    if not found:
        return 0
    _, kind, values, value, _ = found[0]
    if len(found) > 1 or (kind, values) != (SHORT, 1):
        return None
    return value if 1 <= value <= 8 else 1


def with_end(data: bytes) -> bytes | None:
    """A file that may lack only its end marker, with one; None if it has one, or lacks scans of a progressive file.

    The decoder notices missing data inside a scan, but a progressive file that ends between two scans looks whole.
    """
    if data.endswith(END) or not _has_all_scans(data):
        return None
    return data + (END[1:] if data.endswith(b"\xff") else END)


def _has_all_scans(data: bytes) -> bool:
    """Whether the scans bring every coefficient of every component to its last bit; True for a sequential file."""
    missing: dict[int, list[int]] | None = None  # bits that each coefficient of each component lacks
    at = 2
    while (found := _AFTER_SCAN.search(data, at)) is not None:
        marker, at = data[found.end() - 1], found.end()
        body = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        if marker == _PROGRESSIVE_FRAME and len(body) >= 6:
            missing = {number: [COEFFICIENTS] * COEFFICIENTS for number in body[6 : 6 + 3 * body[5] : 3]}
        elif marker == _SCAN and missing is not None and len(body) >= 2 * (body[0] if body else 1) + 4:
            first, last, bits = body[-3], body[-2], body[-1] & 15
            for number in body[1 : 1 + 2 * body[0] : 2]:
                missing.get(number, [])[first : last + 1] = [bits] * (last + 1 - first)
        at += len(body) + 2
    return missing is None or not any(any(bits) for bits in missing.values())
