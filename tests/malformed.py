"""Files that are no images, or odd ones, for the tests of malformed input."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from tests.conftest import draw_photo, write_photos
from tests.indexer.conftest import served, stored
from tests.training.data.test_decode import png_header


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GOOD = encoded(draw_photo(0), "JPEG")
BAD_IMAGES = {
    "empty": (b"", "0 bytes"),
    "text": (b"just some text", "text, not an image"),
    "truncated-jpeg": (GOOD[: len(GOOD) // 2], "truncated"),
    "jpeg-header-only": (GOOD[:20], "truncated|not a supported image"),
    "truncated-png": (encoded(draw_photo(1), "PNG")[:2000], "truncated"),
    "truncated-webp": (encoded(draw_photo(1), "WEBP")[:200], "truncated|not a supported image"),
    "png-50000x50000": (png_header(50_000, 50_000), "50000 x 50000 pixels"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "pdf": (b"%PDF-1.7\n\x80\x81", "not a supported image"),
    "zip": (b"PK\x03\x04\x80\x81\x82", "not a supported image"),
    "html": (b"<!doctype html><p>404", "text, not an image"),
    "noise": (bytes(np.random.default_rng(0).integers(128, 256, 3000, dtype=np.uint8)), "not a supported image"),
}
ODD_IMAGES = {
    "cmyk": encoded(Image.new("CMYK", (40, 30), (0, 200, 200, 0)), "JPEG"),
    "png-16-bit": encoded(Image.fromarray(np.full((30, 40), 40_000, np.uint16)), "PNG"),
    "animated-gif": encoded(draw_photo(1), "GIF", save_all=True, append_images=[draw_photo(2)]),
    "palette-png": encoded(draw_photo(3).convert("P"), "PNG"),
    "one-pixel": encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
    "very-wide": encoded(Image.new("RGB", (5000, 2), "red"), "PNG"),
    "alpha": encoded(Image.new("RGBA", (30, 30), (255, 0, 0, 9)), "PNG"),
    "one-bit": encoded(Image.new("1", (30, 30), 1), "PNG"),
}


def write_home(folder: Path, encoder: Path) -> Path:
    """The home of a collection of nine photos, with a good photo beside it."""
    with Home.open(folder / "home", create=True) as home:
        index_source(home, "default", write_photos(folder / "shop", 9), encoder_ref=str(encoder), processes=0)
    (folder / "photo.jpg").write_bytes(GOOD)
    return folder


def everything(home: Path) -> tuple[Any, ...]:
    """All that a home holds."""
    with Home.open(home) as opened:
        return stored(opened), served(opened), opened.catalogue.search_state("default")
