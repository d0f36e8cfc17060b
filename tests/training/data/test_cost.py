"""The memory that decoding takes is known before: measured in a process of its own, format by format."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.cost import decoding_bytes
from training.data.decode import decode_image
from training.data.strips import reduction

SIDE = 3000
MB = 10**6
KINDS: dict[str, tuple[str, str, dict[str, object]]] = {  # mode, format, options
    "png": ("RGB", "PNG", {"compress_level": 1}),
    "png-alpha": ("RGBA", "PNG", {"compress_level": 1}),
    "png-16-bit": ("I;16", "PNG", {"compress_level": 1}),
    "png-palette": ("P", "PNG", {"compress_level": 1, "transparency": 0}),
    "gif": ("P", "GIF", {}),
    "webp": ("RGB", "WEBP", {"lossless": True, "method": 0, "quality": 0}),
    "tiff-lzw": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    "tiff-one-strip": ("RGB", "TIFF", {"compression": "tiff_lzw", "tiffinfo": {278: SIDE}}),
    "tiff-float": ("F", "TIFF", {"compression": "tiff_lzw"}),
    "jpeg": ("RGB", "JPEG", {}),
    "jpeg-progressive": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    "jpeg-progressive-420": ("RGB", "JPEG", {"progressive": True, "subsampling": 2}),
    "jpeg-cmyk": ("CMYK", "JPEG", {}),
}
MEASURE = """
import io, json, sys
import numpy as np
from pathlib import Path
from PIL import Image
from training.data.decode import decode_image, ImageLimits

def peak():
    return int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]) * 1024

def resident():
    return int(next(line for line in open('/proc/self/status') if line.startswith('VmRSS')).split()[1]) * 1024

grown = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    data = path.read_bytes()
    for _ in range(2):  # memory that is free but still resident hides a part of the first or the second
        Path('/proc/self/clear_refs').write_text('5')  # the peak starts again from the present size
        before = resident()
        decode_image(data, at_least=96, limits=ImageLimits(max_bytes=10**9))
        grown[path.name] = max(grown.get(path.name, 0), peak() - before)
print(json.dumps(grown))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    stripes = np.zeros((SIDE, SIDE), np.uint8)
    stripes[::64] = 200
    for name, (mode, kind, options) in KINDS.items():
        if mode == "I;16":
            image = Image.fromarray(stripes.astype(np.uint16) * 200)
        elif mode == "F":
            image = Image.fromarray(stripes.astype(np.float32))
        else:
            image = Image.fromarray(stripes).convert(mode)
        image.save(folder / name, kind, **options)
    return folder


@pytest.fixture(scope="module")
def grown(files: Path) -> dict[str, int]:
    done = subprocess.run([sys.executable, "-c", MEASURE, str(files)], capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", KINDS)
def test_decoding_takes_no_more_than_its_estimate(files: Path, grown: dict[str, int], name: str) -> None:
    estimate = decoding_bytes((files / name).read_bytes(), 96)
    assert grown[name] <= estimate + 6 * MB
    assert estimate <= 2 * grown[name] + 16 * MB  # and the estimate does not refuse what would fit


def test_a_small_file_of_16_bit_grey_is_decoded_without_wide_copies(grown: dict[str, int]) -> None:
    assert grown["png-16-bit"] < 4 * SIDE * SIDE  # 2 bytes per pixel and one strip


def test_what_is_no_image_costs_nothing() -> None:
    for data in (b"", b"text", b"\xff\xd8\xff", b"\xff\xd8\xff\xc0\x00\x11", b"\x89PNG\r\n\x1a\n"):
        assert decoding_bytes(data) == 0


def test_a_sequential_jpeg_with_a_scan_for_each_component_costs_as_a_progressive_one() -> None:
    """libjpeg keeps the coefficients of all scans; such a file says that it is sequential."""
    buffer = io.BytesIO()
    Image.new("RGB", (1600, 1200), "teal").save(buffer, "JPEG", subsampling=0)
    data = bytearray(buffer.getvalue())
    whole = decoding_bytes(bytes(data), 96)
    scan = data.rindex(b"\xff\xda")
    data[scan + 4] = 1
    assert decoding_bytes(bytes(data), 96) >= whole + 2 * 3 * 1600 * 1200


@pytest.mark.parametrize(("size", "at_least", "factor"), [
    ((1000, 1000), 96, 1),
    ((2000, 2000), 96, 6), ((8000, 8000), 2048, 3), ((20_000, 200), 96, 1), ((90_000, 200), 96, 2),
    ((8000, 8000), None, 1),
])  # fmt: skip
def test_large_images_are_reduced_and_small_ones_are_not(
    size: tuple[int, int], at_least: int | None, factor: int
) -> None:
    assert reduction(*size, at_least) == factor


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "CMYK", "F"])
def test_strips_give_the_same_pixels_as_the_whole(mode: str) -> None:
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (700, 1100, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    image = (
        image.quantize(64) if mode == "P" else image.convert("L").convert(mode) if mode == "F" else image.convert(mode)
    )
    if mode == "F":
        image = image.point(lambda value: value * (1 / 255))  # a range of 0 to 1, which only the whole picture shows
    kind = "TIFF" if mode in ("CMYK", "F") else "PNG"
    buffer = io.BytesIO()
    image.save(buffer, kind)
    expected = np.asarray(image.convert("L").convert("RGB")) if mode == "F" else np.asarray(image.convert("RGB"))
    found = decode_image(buffer.getvalue()).pixels
    if mode == "F":
        grey = np.asarray(image) * 255
        assert np.abs(found[..., 0] - grey).max() <= 0.51
    elif mode == "RGBA":
        assert (found == noise).all()
    else:
        assert (found == expected).all()
