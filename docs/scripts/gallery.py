"""Draw the pictures in `docs/gallery.md`: `python docs/scripts/gallery.py ENCODERS PHOTOS [NAME...]`.

ENCODERS has one directory per family, as written by `benchmarks/latents.py clothing DATA OUT` to OUT/clothing.
PHOTOS is a SOURCE that no encoder was trained on. Only pictures that the page shows are kept; names draw those
directories alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from training.data.decode import decode_image
from training.data.sources import read_images
from training.encoder import Encoder, load_encoder
from training.files import publish_file
from training.fitting.pictures import encode_png
from training.gallery import ACROSS, Row, draw_sheet, write_gallery
from training.protocols import CodeModel

DOCS = Path(__file__).parents[1]
COUNT, QUALITY, SAMPLES = 96, 82, 32


def draw_uniform(encoder: Encoder) -> NDArray[np.uint8]:
    """Decoded codes drawn without a prior: every code equally likely at every position."""
    shape = encoder.model.codes(torch.zeros(1, 3, encoder.preprocessing.size, encoder.preprocessing.size)).shape[1:]
    codes = torch.randint(encoder.config["codes"], (SAMPLES, *shape), generator=torch.Generator().manual_seed(0))
    return draw_sheet([Row("", row) for row in encoder.decode(codes).split(ACROSS)])


def main(encoders: Path, photos: Path, names: Sequence[str]) -> None:
    images, _ = read_images(photos)
    chosen = np.random.default_rng(0).permutation(len(images))[:COUNT]
    pixels = [decode_image(images[int(place)].path.read_bytes(), at_least=64).pixels for place in chosen]
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    found = sorted(path.parent for path in encoders.glob("*/encoder.json"))
    for directory in [path for path in found if not names or path.name in names]:
        stem = directory.name.replace(" ", "-")
        encoder = load_encoder(directory)
        prepared = torch.stack([encoder.prepare(picture) for picture in pixels])
        written = write_gallery(encoder, prepared.numpy(), directory / "gallery").written
        if isinstance(encoder.model, CodeModel):
            written["uniform"] = publish_file(directory / "gallery/uniform.png", encode_png(draw_uniform(encoder)))
        for name, path in written.items():
            animation = f"images/gallery/{stem}-{path.name}"
            if path.suffix == ".gif" and f"({animation})" in page:
                publish_file(DOCS / animation, path.read_bytes())
            shown = f"images/gallery/{stem}-{name}.jpg"
            if f"({shown})" in page:
                with Image.open(path) as picture:
                    picture.convert("RGB").save(DOCS / shown, quality=QUALITY, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
