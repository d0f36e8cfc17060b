"""Fuzz image decoding and manifest reading: `python -m tests.fuzz images|manifests [libFuzzer options]`.

Needs `pip install atheris`. Ten minutes each:

    python -m tests.fuzz images -max_total_time=600 -rss_limit_mb=1500
    python -m tests.fuzz manifests -max_total_time=600 -rss_limit_mb=1500

Starts from small valid files of every format. An input fails if something other than a documented error is raised, if a
result breaks its contract, or if it needs too much memory or time. `tests/test_fuzz.py` runs the same checks on mutated
files in the default tests.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from training.data.decode import ImageLimits, decode_image
from training.data.sources import read_images
from training.errors import ImageError, SourceError

LIMITS = ImageLimits(max_pixels=1_000_000)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MODES = ("RGB", "L", "RGBA", "P", "1", "CMYK", "I;16", "F")
SUFFIXES = (".csv", ".jsonl", ".parquet")
ROWS = [
    {"item_id": "a", "image": "a.jpg", "title": "A bag, red", "colour": "rouge é"},
    {"item_id": "b", "image": "sub/b.png", "title": "", "colour": "1.5"},
]


def check_image(data: bytes) -> None:
    """Decode; fails on any error but `ImageError`."""
    try:
        decoded = decode_image(data, at_least=32, limits=LIMITS)
    except ImageError as exc:
        assert str(exc).isprintable(), f"the reason is not one printable line: {exc!r}"
        return
    assert decoded.pixels.dtype == np.uint8 and decoded.pixels.ndim == 3 and decoded.pixels.shape[2] == 3
    assert 0 < decoded.pixels.shape[0] * decoded.pixels.shape[1] <= LIMITS.max_pixels


def check_manifest(data: bytes) -> None:
    """Read a manifest whose format is chosen by the first byte; fails on any error but `SourceError`."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder) / f"catalogue{SUFFIXES[data[0] % len(SUFFIXES) if data else 0]}"
        path.write_bytes(data[1:])
        try:
            images, problems = read_images(path)
        except SourceError as exc:
            assert str(exc)
            return
    for image in images:
        for text in (image.item_id, image.title or "", *image.attributes, *image.attributes.values()):
            text.encode()
            assert "\0" not in text
        assert image.item_id
    for problem in problems:
        assert problem.reason
        problem.reason.encode()


def image_seeds() -> list[bytes]:
    """A small file of every format and mode that Pillow writes, and some with metadata."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8))
    found = []
    for name in FORMATS:
        for mode in MODES:
            buffer = io.BytesIO()
            try:
                image = (
                    noise.convert("L").convert("I").point(lambda v: v * 256).convert("I;16")
                    if mode == "I;16"
                    else noise.convert(mode)
                )
                exif = Image.Exif()
                exif[0x0112] = 6
                image.save(buffer, name, **({"exif": exif} if name in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
            except (OSError, ValueError, KeyError):
                continue  # the format has no such mode
            found.append(buffer.getvalue())
    return found


def manifest_seeds() -> list[bytes]:
    """A small manifest of every format, with the byte that chooses it."""
    table = ",".join(ROWS[0]) + "\n" + "\n".join(",".join(f'"{v}"' for v in row.values()) for row in ROWS)
    lines = "\n".join(json.dumps(row) for row in ROWS)
    found = [b"\0" + table.encode(), b"\0" + table.encode("utf-8-sig"), b"\1" + lines.encode()]
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        return found
    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), sink)
    return [*found, b"\2" + sink.getvalue()]


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "images": (check_image, image_seeds),
    "manifests": (check_manifest, manifest_seeds),
}


def main() -> None:
    import atheris

    check, seeds = TARGETS[sys.argv.pop(1)]
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds()):
            (Path(corpus) / f"seed-{number}").write_bytes(data)
        atheris.Setup([*sys.argv, corpus], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
