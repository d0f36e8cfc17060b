"""Files as cameras, telephones and editors write them: HEIC, AVIF, large texts, damage, and what is no image."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from tests.conftest import draw_photo
from tests.training.data.test_decode import encoded
from training.data.decode import ImageLimits, decode_alpha, decode_image
from training.errors import ImageError, NitamonoError

PHOTO = draw_photo(12, (96, 64))


def heic(image: Image.Image, **options: Any) -> bytes:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return encoded(image, "HEIF", quality=95, **options)


def test_heic_and_avif_are_read_upright() -> None:
    for data in (encoded(PHOTO, "AVIF", quality=95), heic(PHOTO)):
        decoded = decode_image(data)
        assert (decoded.width, decoded.height) == PHOTO.size
        assert np.abs(decoded.pixels.astype(int) - np.asarray(PHOTO)).mean() < 6
    exif = Image.Exif()
    exif[0x0112] = 6
    turned_right = exif.tobytes()
    turned = np.asarray(PHOTO.transpose(Image.Transpose.ROTATE_270))
    for data in (encoded(PHOTO, "AVIF", quality=95, exif=turned_right), heic(PHOTO, exif=turned_right)):
        decoded = decode_image(data)
        assert (decoded.width, decoded.height) == (64, 96)
        assert np.abs(decoded.pixels.astype(int) - turned).mean() < 6


def test_the_alpha_of_avif_is_a_mask_and_limits_hold() -> None:
    clear = PHOTO.convert("RGBA")
    clear.putalpha(0)
    data = encoded(clear, "AVIF")
    assert (decode_image(data).pixels == 255).all()
    alpha = decode_alpha(data)
    assert alpha is not None and alpha.max() == 0
    for small in (data, heic(PHOTO)):
        with pytest.raises(ImageError, match="96 x 64 pixels; the limit is 5000 pixels in total"):
            decode_image(small, limits=ImageLimits(max_pixels=5000))


WITHOUT_HEIF = """
import sys
sys.modules["pillow_heif"] = None
from training.data.decode import decode_image
try: decode_image(open(sys.argv[1], "rb").read())
except ValueError as exc: print(type(exc).__name__, exc)
"""


def test_heic_without_its_package_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "a.HEIC").write_bytes(heic(PHOTO))
    call = [sys.executable, "-c", WITHOUT_HEIF, tmp_path / "a.HEIC"]
    printed = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("ImageError the file is HEIC, which needs the package 'pillow-heif'")
    assert "pip install 'nitamono[heif]'" in printed


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["HEIC", "AVIF"]), st.binary(min_size=1, max_size=40), st.data())
def test_damaged_heic_and_avif_give_pixels_or_an_image_error(kind: str, junk: bytes, data: st.DataObject) -> None:
    whole = bytearray(SMALL[kind])
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at : at + len(junk)] = junk
    try:
        decode_image(bytes(whole[: data.draw(st.sampled_from([None, None, at + 1]))]))
    except ImageError as exc:
        assert "\n" not in str(exc)


SMALL = {"HEIC": heic(draw_photo(2).resize((32, 24))), "AVIF": encoded(draw_photo(2).resize((32, 24)), "AVIF")}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + b" " * 600, "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "a video"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not a supported image"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "truncated or corrupt"),
        (b"\x89PNG\r\n\x1a\n", "truncated or corrupt"),
        (b"8BPS\0\1", "Photoshop"),
        (b"PK\3\4aaaa", "ZIP"),
        (b"%PDF-1.7 only text", "PDF"),
        (b"\0\0\0\0\0\0\0\0", "not a supported image"),
        ("é".encode() * 400, "text"),
        (b"a" + "é".encode() * 400, "text"),
        (b"II*\0\x08\0\0\0\0\0", "TIFF|truncated or corrupt"),
    ],
)
def test_a_file_that_is_no_image_is_called_what_it_is(data: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=name) as error:
        decode_image(data)
    assert ("text" in str(error.value)) == (name == "text")


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    data = encoded(PHOTO, "PNG")
    body = b"".join(
        struct.pack(">I", len(value)) + kind + value + struct.pack(">I", zlib.crc32(kind + value))
        for kind, value in chunks
    )
    return data[:33] + body + data[33:]


LARGE = b"x" * (3 * 2**20)
TEXTS = {
    "zTXt": [(b"zTXt", b"Comment\0\0" + zlib.compress(LARGE))],
    "compressed iTXt": [(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(LARGE))],
    "iTXt": [(b"iTXt", b"Comment\0\0\0\0\0" + LARGE)],
    "tEXt": [(b"tEXt", b"Comment\0" + LARGE)],
    "many": [(b"zTXt", b"Comment%d\0\0" % n + zlib.compress(LARGE[: 2**20 - 1])) for n in range(70)],
}


@pytest.mark.parametrize("case", TEXTS)
def test_large_texts_in_a_png_are_passed_over(case: str) -> None:
    data = png_with(*TEXTS[case])
    if case != "tEXt":
        assert np.array_equal(decode_image(data).pixels, np.asarray(PHOTO))
    xmp = (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')
    assert decode_image(png_with(xmp, *TEXTS[case])).width == 64
    broken = data[:-60]
    with pytest.raises(ImageError, match="truncated or corrupt"):
        decode_image(broken)


def test_pillows_own_limit_on_texts_is_still_there() -> None:
    """Passing over large texts costs no memory; raising Pillow's limit would."""
    assert PngImagePlugin.MAX_TEXT_CHUNK == 2**20


DAMAGE = """
import io, sys
import numpy as np
from PIL import Image
from training.data.decode import decode_image
from training.errors import ImageError
rng = np.random.default_rng(0)
photo = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
refused = 0
for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"):
    out = io.BytesIO()
    (photo.convert("1") if compression == "group4" else photo).save(out, "TIFF", compression=compression)
    for _ in range(30):
        data = bytearray(out.getvalue())
        for at in rng.integers(0, len(data), 20):
            data[at] = rng.integers(0, 256)
        try: decode_image(bytes(data))
        except ImageError: refused += 1
print(refused)
"""


def test_damaged_tiffs_print_nothing() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", DAMAGE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20 and done.stderr == ""


def test_the_limits_are_settings_and_messages_name_them(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(PHOTO, "JPEG")
    monkeypatch.setenv("NITAMONO_MAX_PIXELS", "5000")
    with pytest.raises(ImageError, match="the limit is 5000 pixels in total .set NITAMONO_MAX_PIXELS to raise it"):
        decode_image(data)
    monkeypatch.setenv("NITAMONO_MAX_PIXELS", "6144")
    decode_image(data)
    monkeypatch.setenv("NITAMONO_MAX_UPLOAD_BYTES", "1024")
    with pytest.raises(ImageError, match="the limit is 1024 .set NITAMONO_MAX_UPLOAD_BYTES to raise it"):
        decode_image(data)
    for wrong in ("many", "-1", "0", "1.5", ""):
        monkeypatch.setenv("NITAMONO_MAX_UPLOAD_BYTES", wrong)
        with pytest.raises(NitamonoError, match=f"NITAMONO_MAX_UPLOAD_BYTES: '{wrong}' is not a whole number of at"):
            decode_image(data)


def test_a_raised_limit_is_higher_than_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow refuses more than 179 megapixels by itself."""
    monkeypatch.setenv("NITAMONO_MAX_PIXELS", "300000000")
    wide = encoded(Image.new("1", (60_000, 3_200)), "PNG")
    with pytest.raises(ImageError, match="192000000 pixels|the limit is 100000000"):
        decode_image(wide, limits=ImageLimits(max_pixels=100_000_000))
    assert decode_image(encoded(Image.new("1", (2, 2)), "PNG")).width == 2
    Image.open(io.BytesIO(wide), formats=("PNG",)).close()
