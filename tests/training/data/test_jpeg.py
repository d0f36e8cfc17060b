"""JPEG headers are read as Pillow reads them, and a file that lacks only its end marker is whole."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.conftest import draw_photo
from tests.training.data.test_decode import encoded
from training.data.decode import decode_image
from training.data.jpeg import read_header
from training.errors import ImageError

PHOTO = encoded(draw_photo(7).resize((24, 16)), "JPEG")
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def segment(marker: int, body: bytes, fill: int = 0) -> bytes:
    return b"\xff" * (1 + fill) + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def exif(order: str, entries: list[tuple[int, int, int, bytes]], offset: int = 8, start: bytes | None = None) -> bytes:
    """EXIF data with these entries: tag, type, count, value of 4 bytes."""
    head = start if start is not None else {"<": b"II*\0", ">": b"MM\0*"}[order]
    table = b"".join(struct.pack(order + "HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    body = struct.pack(order + "H", len(entries)) + table + bytes(4)
    return EXIF + head + struct.pack(order + "I", offset) + bytes(max(0, offset - 8)) + body


def jpeg(*segments: bytes) -> bytes:
    return PHOTO[:2] + b"".join(segments) + PHOTO[2:]


def assert_as_pillow(data: bytes) -> None:
    """Orientation and size are Pillow's, wherever Pillow understands the metadata."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            expected = image.getexif().get(0x0112, 1)
            size = ImageOps.exif_transpose(image).size
    except (SyntaxError, OSError, ValueError, struct.error, TypeError):
        expected, size = 1, (24, 16)
    expected = expected if expected in range(1, 9) else 1
    assert read_header(data).orientation in (expected, None)
    decoded = decode_image(data)
    assert (decoded.width, decoded.height) == size


def shorts(order: str, value: int) -> bytes:
    return struct.pack(order + "HH", value, 0)


@st.composite
def oriented(draw: st.DrawFn) -> bytes:
    """EXIF data with an orientation, mostly well-formed."""
    order = draw(st.sampled_from("<>"))
    kind = draw(st.sampled_from([3, 3, 3, 3, 1, 2, 4, 5, 7, 9, 13, 99]))
    count = draw(st.sampled_from([1, 1, 1, 0, 2, 3]))
    value = shorts(order, draw(st.one_of(st.integers(0, 9), st.integers(0, 65535))))
    entries = [(0x010F, 2, 3, b"ab\0\0")] * draw(st.integers(0, 3)) + [(0x0112, kind, count, value)]
    entries += [(0x0112, 3, 1, shorts(order, 3))] * draw(st.sampled_from([0, 0, 0, 1]))
    start = draw(st.sampled_from([None, None, None, None, b"II*\0", b"MM\0*", b"II+\0", b"XX*\0"]))
    whole = exif(order, entries, draw(st.sampled_from([8, 8, 8, 10, 20, 0, 4])), start)
    return whole[: draw(st.sampled_from([None, None, None, 6, 10, 14, 17, 20, 26, 30]))]


bodies = st.one_of(
    oriented(),
    st.binary(max_size=30).map(lambda junk: EXIF + junk),
    st.integers(0, 9).map(lambda value: XMP + b'<x tiff:Orientation="%d"/>' % value),
    st.just(XMP + b"<x/>"),
    st.binary(max_size=20),
)
markers = st.sampled_from([0xE1, 0xE1, 0xE1, 0xE2, 0xE5, 0xFE])
segments = st.lists(st.builds(segment, markers, bodies, st.integers(0, 3)), max_size=4)


@settings(max_examples=400, deadline=None)
@given(segments)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_header_gives_pillows_orientation(parts: list[bytes]) -> None:
    assert_as_pillow(jpeg(*parts))


@pytest.mark.parametrize("fill", [0, 1, 2, 5])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_fill_bytes_before_a_marker_change_nothing(fill: int, order: str, orientation: int) -> None:
    body = exif(order, [(0x0112, 3, 1, shorts(order, orientation))])
    data = jpeg(segment(0xE5, b"something", fill), segment(0xE1, body, fill))
    assert read_header(data).orientation == orientation, "read without Pillow"
    assert_as_pillow(data)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.abs(decode_image(data).pixels.astype(int) - np.asarray(expected)).mean() < 1


def test_an_orientation_in_xmp_is_applied() -> None:
    in_xmp = segment(0xE1, XMP + b'<x tiff:Orientation="6"/>')
    assert decode_image(jpeg(in_xmp)).width == 16
    assert_as_pillow(jpeg(in_xmp, segment(0xE1, exif("<", []))))


def test_metadata_that_makes_no_sense_is_no_reason_to_refuse_a_photo() -> None:
    odd = [EXIF + b"nonsense", EXIF, exif("<", [(0x0112, 3, 1, shorts("<", 77))]), EXIF + b"II*\0\xff\xff\xff\x7f"]
    assert [decode_image(jpeg(segment(0xE1, body))).width for body in odd] == [24] * 4
    png = encoded(draw_photo(7).resize((24, 16)), "PNG", exif=b"Exif\0\0nonsense")
    assert decode_image(png).width == 24


LARGE = draw_photo(9, (200, 160))
KINDS: dict[str, dict[str, object]] = {
    "baseline": {"quality": 90},
    "progressive": {"progressive": True},
    "grey": {},
    "cmyk": {},
    "4:2:0": {"subsampling": 2},
    "restarts": {"restart_marker_rows": 1},
    "optimised": {"optimize": True},
}


def of_kind(kind: str) -> bytes:
    modes = {"grey": "L", "cmyk": "CMYK"}
    return encoded(LARGE.convert(modes.get(kind, "RGB")), "JPEG", **KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at_least", [None, 32])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_marker_is_whole(kind: str, at_least: int | None, cut: int) -> None:
    data = of_kind(kind)
    assert data.endswith(b"\xff\xd9")
    whole, cut_off = decode_image(data, at_least=at_least), decode_image(data[:-cut], at_least=at_least)
    assert np.array_equal(whole.pixels, cut_off.pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_that_lacks_content_is_refused_wherever_it_ends(kind: str) -> None:
    data = of_kind(kind)
    scans = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] in (0xDA, 0xC4)]
    ends = {len(data) // 2, len(data) - 40, len(data) - 200, *scans[1:], *(at + 2 for at in scans[1:])}
    for end in sorted(ends):
        with pytest.raises(ImageError, match="truncated"):
            decode_image(data[:end], at_least=32)
