"""Draws the pictures that `docs/gallery.md` shows: `python docs/gallery.py ENCODERS PHOTOS`.

ENCODERS holds a directory for each family, as `benchmarks/latents.py clothing DATA OUT` leaves them in OUT/clothing;
PHOTOS is a SOURCE that none of them was trained on.
"""

from __future__ import annotations

import sys
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

COUNT, QUALITY, SAMPLES = 96, 82, 32


def draw_uniform(encoder: Encoder) -> NDArray[np.uint8]:
    """What codes drawn without any prior decode to, each as likely as any other at every place."""
    shape = encoder.model.codes(torch.zeros(1, 3, encoder.preprocessing.size, encoder.preprocessing.size)).shape[1:]
    codes = torch.randint(encoder.config["codes"], (SAMPLES, *shape), generator=torch.Generator().manual_seed(0))
    return draw_sheet([Row("", row) for row in encoder.decode(codes).split(ACROSS)])


def main(encoders: Path, photos: Path) -> None:
    images, _ = read_images(photos)
    chosen = np.random.default_rng(0).permutation(len(images))[:COUNT]
    pixels = [decode_image(images[int(place)].path.read_bytes(), at_least=64).pixels for place in chosen]
    page = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    for directory in sorted(path.parent for path in encoders.glob("*/encoder.json")):
        encoder = load_encoder(directory)
        prepared = torch.stack([encoder.prepare(picture) for picture in pixels])
        written = write_gallery(encoder, prepared, directory / "gallery").written
        if hasattr(encoder.model, "codes"):
            written["uniform"] = publish_file(directory / "gallery/uniform.png", encode_png(draw_uniform(encoder)))
        for name, path in written.items():
            shown = f"images/gallery/{directory.name}-{name}.jpg"
            if f"({shown})" in page:
                with Image.open(path) as picture:
                    picture.convert("RGB").save(Path(__file__).parent / shown, quality=QUALITY, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
