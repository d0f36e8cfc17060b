"""Draws the pictures that `docs/gallery.md` shows: `python docs/gallery.py ENCODERS PHOTOS`.

ENCODERS holds a directory for each family, as `benchmarks/latents.py clothing DATA OUT` leaves them in OUT/clothing;
PHOTOS is a SOURCE that none of them was trained on.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from training.data.decode import decode_image
from training.data.sources import read_images
from training.encoder import load_encoder
from training.gallery import write_gallery

COUNT, QUALITY = 96, 82


def main(encoders: Path, photos: Path) -> None:
    images, _ = read_images(photos)
    chosen = np.random.default_rng(0).permutation(len(images))[:COUNT]
    pixels = [decode_image(images[int(place)].path.read_bytes(), at_least=64).pixels for place in chosen]
    page = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    for directory in sorted(path.parent for path in encoders.glob("*/encoder.json")):
        encoder = load_encoder(directory)
        prepared = torch.stack([encoder.prepare(picture) for picture in pixels])
        written = write_gallery(encoder, prepared, directory / "gallery").written
        for name, path in written.items():
            shown = f"images/gallery/{directory.name}-{name}.jpg"
            if f"({shown})" in page:
                with Image.open(path) as picture:
                    picture.convert("RGB").save(Path(__file__).parent / shown, quality=QUALITY, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
