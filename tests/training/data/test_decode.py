"""Decoding: every supported format, the limits, and damaged files."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.conftest import draw_photo
from training.data.decode import ImageLimits, decode_image
from training.errors import ImageError


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_every_accepted_format_gives_upright_rgb(kind: str) -> None:
    photo = draw_photo(3)
    decoded = decode_image(encoded(photo, kind))
    assert (decoded.width, decoded.height) == photo.size
    assert decoded.pixels.shape == (photo.height, photo.width, 3)
    assert decoded.pixels.dtype == np.uint8
    assert np.abs(decoded.pixels.astype(int) - np.asarray(photo)).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_is_applied_as_pillow_does(orientation: int, kind: str, order: str) -> None:
    photo = draw_photo(4)
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112] = orientation
    exif[0x010F] = "a maker with a longer name"
    data = encoded(photo, kind, exif=exif.tobytes())
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    decoded = decode_image(data)
    assert decoded.pixels.shape == expected.shape
    assert (decoded.height, decoded.width) == expected.shape[:2]
    assert np.abs(decoded.pixels.astype(int) - expected).mean() < 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(8, 256))
def test_a_scaled_jpeg_is_never_smaller_than_needed(width: int, height: int, at_least: int) -> None:
    data = encoded(Image.new("RGB", (width, height), "teal"), "JPEG")
    decoded = decode_image(data, at_least=at_least)
    assert (decoded.width, decoded.height) == (width, height)
    assert decoded.pixels.shape[0] >= min(height, at_least)
    assert decoded.pixels.shape[1] >= min(width, at_least)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size() -> None:
    data = encoded(draw_photo(5, (1600, 1200)), "JPEG")
    assert decode_image(data, at_least=64).pixels.shape == (150, 200, 3)


def test_alpha_is_composited_on_white_and_palettes_are_resolved() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode_image(encoded(clear, "PNG")).pixels == 255).all()
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert abs(int(decode_image(encoded(half, "PNG")).pixels[0, 0, 1]) - 127) <= 1
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert (decode_image(encoded(palette, "PNG")).pixels == [10, 200, 30]).all()
    assert (decode_image(encoded(palette, "PNG", transparency=1)).pixels == 255).all()


def test_cmyk_and_16_bit_images_are_converted() -> None:
    cmyk = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    red = decode_image(cmyk, at_least=8).pixels.reshape(-1, 3).mean(0)
    assert red[0] > 200 and red[1] < 60 and red[2] < 60
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    grey = decode_image(encoded(Image.fromarray(ramp), "PNG")).pixels
    np.testing.assert_allclose(grey[..., 0], ramp / 257, atol=0.5)
    assert (grey[..., 0] == grey[..., 2]).all()


def test_an_animated_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode_image(data).pixels == [255, 0, 0]).all()


def test_one_pixel_is_an_image() -> None:
    assert decode_image(encoded(Image.new("RGB", (1, 1), "red"), "PNG"), at_least=64).pixels.shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes"),
        (b"hello, this is text", "text, not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7\n\x80\x81\x82", "not a supported image"),
        (b"\xff\xd8\xff", "truncated or corrupt|not a supported image"),
        (
            png_header(50_000, 50_000),
            "50000 x 50000 pixels; the limit is 64000000 pixels in total .set NITAMONO_MAX_PIXELS",
        ),
        (encoded(draw_photo(1), "JPEG")[:1500], "truncated"),
        (encoded(draw_photo(1), "PNG")[:900], "truncated or corrupt"),
        (encoded(draw_photo(1), "GIF")[:2500], "truncated or corrupt"),
        (encoded(draw_photo(1), "WEBP")[:100], "truncated or corrupt|not a supported image"),
        (encoded(draw_photo(1), "TIFF")[:400], "truncated or corrupt|not a supported image"),
        (encoded(draw_photo(1), "PPM"), "not a supported image|text"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as error:
        decode_image(data, at_least=64)
    assert "\n" not in str(error.value)


def test_bytes_and_pixels_are_checked_before_decoding() -> None:
    data = encoded(draw_photo(1), "JPEG")
    with pytest.raises(ImageError, match=f"{len(data)} bytes; the limit is 100"):
        decode_image(data, limits=ImageLimits(max_bytes=100))
    with pytest.raises(ImageError, match="96 x 128 pixels; the limit is 1000 pixels in total"):
        decode_image(data, limits=ImageLimits(max_pixels=1000))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]), st.data())
def test_damage_anywhere_gives_pixels_or_an_image_error(junk: bytes, kind: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(draw_photo(2, (24, 24)), kind))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at : at + len(junk)] = junk
    try:
        decoded = decode_image(bytes(whole), at_least=16, limits=ImageLimits(max_pixels=10**6))
    except ImageError:
        return
    assert decoded.pixels.ndim == 3 and decoded.pixels.shape[2] == 3
