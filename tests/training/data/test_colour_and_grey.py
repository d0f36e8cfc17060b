"""Colour profiles become sRGB, and grey pictures of wide types get the brightness that they have."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from tests.conftest import draw_photo
from tests.training.data.test_decode import encoded
from training.data.decode import decode_image
from training.data.grey import MAX_SAMPLE, PHOTOMETRIC, SMAX_SAMPLE
from training.errors import ImageError

# Primaries adapted to D50 (columns X, Y, Z of red, green, blue) and gamma.
SPACES = {
    "Adobe RGB": (((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), 2.2),
    "Display P3": (((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)), 2.2),
    "ProPhoto": (((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)), 1.8),
}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def profile(tags: dict[bytes, bytes], space: bytes, kind: bytes = b"mntr", pcs: bytes = b"XYZ ") -> bytes:
    """An ICC profile of version 2 with these tags."""
    tags = {b"desc": text_tag(), b"cprt": b"text\0\0\0\0x\0", b"wtpt": xyz(0.9642, 1.0, 0.8249), **tags}
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", at + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">II", at + len(body), 0) + b"\x02\x10\0\0" + kind + space + pcs + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + table + body


def text_tag() -> bytes:
    return b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78)


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(value * 65536) for value in values))


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def space_profile(name: str) -> bytes:
    primaries, gamma = SPACES[name]
    tags = {letter + b"XYZ": xyz(*column) for letter, column in zip((b"r", b"g", b"b"), primaries, strict=True)}
    return profile(tags | {letter + b"TRC": curve(gamma) for letter in (b"r", b"g", b"b")}, b"RGB ")


def stored_in(image: Image.Image, name: str) -> Image.Image:
    """The picture of an sRGB image in another space."""
    converted = ImageCms.profileToProfile(
        image, io.BytesIO(SRGB), io.BytesIO(space_profile(name)), ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
    return Image.fromarray(np.asarray(converted))  # without the profile


PHOTO = draw_photo(11, (128, 96))


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_wide_gamut_pictures_have_their_colours(name: str, kind: str) -> None:
    wide = stored_in(PHOTO, name)
    assert np.abs(np.asarray(wide).astype(int) - np.asarray(PHOTO)).mean() > 3, "the test would show nothing"
    exact = {"quality": 98} if kind in ("JPEG", "AVIF") else {"lossless": True} if kind == "WEBP" else {}
    data = encoded(wide, kind, icc_profile=space_profile(name), **exact)
    decoded = decode_image(data)
    assert np.abs(decoded.pixels.astype(int) - np.asarray(PHOTO)).mean() < 3
    plain = decode_image(encoded(wide, kind, **exact))
    assert np.abs(plain.pixels.astype(int) - np.asarray(wide)).mean() < 2


def test_transparent_and_palette_pictures_have_their_colours_too() -> None:
    icc = space_profile("ProPhoto")
    wide = stored_in(Image.new("RGB", (8, 8), (200, 30, 60)), "ProPhoto")
    clear = wide.convert("RGBA")
    clear.putalpha(128)
    half = decode_image(encoded(clear, "PNG", icc_profile=icc)).pixels[0, 0]
    np.testing.assert_allclose(half, [227, 142, 157], atol=3)
    palette = decode_image(encoded(wide.quantize(4), "PNG", icc_profile=icc)).pixels[0, 0]
    np.testing.assert_allclose(palette, [200, 30, 60], atol=8)


def test_a_large_profile_in_several_segments_is_joined_in_order() -> None:
    icc = space_profile("ProPhoto")
    padded = profile({b"junk": b"data" + bytes(150_000)}, b"RGB ")  # only to show that Pillow splits at 64 KiB
    assert encoded(PHOTO, "JPEG", icc_profile=padded).count(b"ICC_PROFILE\0") == 3
    whole = encoded(stored_in(PHOTO, "ProPhoto"), "JPEG", quality=98)
    parts = [icc[:100], icc[100:]]
    segments = [b"ICC_PROFILE\0" + bytes([n, 2]) + part for n, part in enumerate(parts, start=1)]
    body = b"".join(b"\xff\xe2" + struct.pack(">H", len(part) + 2) + part for part in reversed(segments))
    assert np.abs(decode_image(whole[:2] + body + whole[2:]).pixels.astype(int) - np.asarray(PHOTO)).mean() < 3


@pytest.mark.parametrize("icc", [SRGB, b"", b"nonsense" * 40, SRGB[:200], space_profile("ProPhoto")[:300]])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_srgb_and_damaged_profiles_change_nothing(icc: bytes, kind: str) -> None:
    assert np.array_equal(
        decode_image(encoded(PHOTO, kind, icc_profile=icc)).pixels, decode_image(encoded(PHOTO, kind)).pixels
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_grey_profile_is_applied_to_a_grey_picture_and_to_no_other(kind: str) -> None:
    icc = profile({b"kTRC": curve(1.0)}, b"GRAY")
    grey = Image.new("L", (16, 16), 55)  # linear light of .216 is 128 in sRGB
    assert abs(int(decode_image(encoded(grey, kind, icc_profile=icc, quality=98)).pixels[0, 0, 0]) - 128) <= 2
    colour = encoded(Image.new("RGB", (16, 16), (55, 55, 55)), kind, icc_profile=icc)
    assert abs(int(decode_image(colour).pixels[0, 0, 0]) - 55) <= 1


def test_a_cmyk_profile_is_applied() -> None:
    inks = np.array([[c, m, y, k] for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)])
    lightness = 255 * (1 - inks[:, 3]) * (1 - inks[:, :3].sum(axis=1) / 6)
    lab = np.stack([lightness, np.full(16, 128), np.full(16, 128)], axis=1)
    ramp = bytes(range(256))
    table = lab.round().astype(np.uint8).tobytes()
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *np.eye(3, dtype=int).ravel() * 65536)
    icc = profile({b"A2B0": lut + ramp * 4 + table + ramp * 3}, b"CMYK", b"prtr", b"Lab ")
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    decoded = decode_image(encoded(cyan, "JPEG", icc_profile=icc)).pixels[0, 0]
    np.testing.assert_allclose(decoded, [206] * 3, atol=4)  # L* = 83.3, as the profile says
    assert decode_image(encoded(cyan, "JPEG")).pixels[0, 0, 0] < 10


RAMP = np.linspace(0, 1, 64).reshape(8, 8)
EIGHT_BITS = (RAMP * 255).round()
GREYS: dict[str, tuple[np.ndarray[Any, Any], dict[int, Any]]] = {
    "float 0-1": (RAMP.astype(np.float32), {}),
    "float 0-1 with overshoot": ((RAMP * 1.06 - 0.03).clip(-0.03, 1.03).astype(np.float32), {}),
    "float 0-255": ((RAMP * 255).astype(np.float32), {}),
    "float 0-65535": ((RAMP * 65535).astype(np.float32), {}),
    "float with a tag": ((RAMP * 1000).astype(np.float32), {SMAX_SAMPLE: 1000.0}),
    "int32 0-255": ((RAMP * 255).round().astype(np.int32), {}),
    "int32 0-65535": ((RAMP * 65535).round().astype(np.int32), {}),
    "uint16": ((RAMP * 65535).round().astype(np.uint16), {}),
    "uint16 of 12 bits with a tag": ((RAMP * 4095).round().astype(np.uint16), {MAX_SAMPLE: 4095}),
    "uint16 white is zero": (((1 - RAMP) * 65535).round().astype(np.uint16), {PHOTOMETRIC: 0}),
}


def tiff(values: np.ndarray[Any, Any], tags: dict[int, Any], **options: Any) -> bytes:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        if tag == SMAX_SAMPLE:
            info.tagtype[tag] = 12
        info[tag] = value
    data = encoded(Image.fromarray(values), "TIFF", tiffinfo=info, **options)
    if PHOTOMETRIC in tags:  # Pillow writes its own
        entry = struct.pack("<HHI", PHOTOMETRIC, 3, 1)
        data = data.replace(entry + b"\1\0", entry + b"\0\0")
    return data


@pytest.mark.parametrize("case", GREYS)
def test_a_grey_tiff_has_the_brightness_that_its_type_tags_and_content_say(case: str) -> None:
    values, tags = GREYS[case]
    pixels = decode_image(tiff(values, tags)).pixels
    tolerance = 8 if "overshoot" in case else 1
    np.testing.assert_allclose(pixels[..., 0].astype(float), EIGHT_BITS, atol=tolerance)
    assert (pixels[..., 0] == pixels[..., 2]).all()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[-5.0, 3.0]], np.float32), "range from -5 to 3, and nothing tells which is white"),
        (np.array([[0.0, 1e6]], np.float32), "range from 0 to 1e"),
        (np.array([[0.0, np.nan]], np.float32), "include NaN or infinity"),
        (np.array([[0.0, np.inf]], np.float32), "include NaN or infinity"),
        (np.array([[-1, 4]], np.int32), "range from -1 to 4"),
        (np.array([[0, 70_000]], np.int32), "range from 0 to 70000"),
    ],
)
def test_grey_values_of_unknown_range_are_refused(values: np.ndarray[Any, Any], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode_image(tiff(values, {}))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_wide_grey_tiff_is_upright(orientation: int) -> None:
    values = np.zeros((4, 6), np.uint16)
    values[0, 0] = 65535
    decoded = decode_image(tiff(values, {274: orientation}))
    assert (decoded.width, decoded.height) == ((6, 4) if orientation < 5 else (4, 6))
    place = {1: (0, 0), 3: (-1, -1), 6: (0, -1), 8: (-1, 0)}[orientation]
    assert decoded.pixels[place][0] == 255 and decoded.pixels.astype(int).sum() == 3 * 255
