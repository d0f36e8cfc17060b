"""Do line drawings find photos of their category? `python benchmarks/drawn_queries.py DATA EMOJI REF [REF ...]`.

The gallery is the clothing photos of DATA (`benchmarks/prepare_data.py`, training part). Queries are its validation
photos as they are, and as drawings of their edges (`training.fitting.augment.edges`), which is how a person's drawing
could look at its best; and the garments of EMOJI (a folder of the archive `emoji-objects`), drawn by other hands, on
white and as drawings of their edges. Prints a Markdown table of precision@1 and precision@10 by category with 95 %
bootstrap intervals over queries, beside the chance of a random order.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.evaluate.images import embed_pixels
from indexer.measures.metrics import Bootstrap, metrics_of, rank, score_blocks
from training.data.dataset import load_dataset
from training.data.decode import decode_image
from training.data.sources import read_images
from training.encoder import Encoder, load_encoder
from training.fitting.augment import edges
from training.preprocessing import Preprocessing

GARMENTS = {
    "t-shirt": "t-shirt", "jeans": "pants", "dress": "dress", "shorts": "shorts", "coat": "outwear",
    "lab-coat": "outwear", "safety-vest": "outwear", "billed-cap": "hat", "mans-shoe": "shoes",
    "athletic-shoe": "shoes", "high-heeled-shoe": "shoes", "hiking-boot": "shoes", "flat-shoe": "shoes",
    "ballet-shoes": "shoes", "thong-sandal": "shoes",
}  # fmt: skip
SHOWN = ("precision@1", "precision@10")
Pixels = NDArray[np.uint8]


def drawn(pixels: Pixels) -> Pixels:
    """Drawings of the edges of prepared pictures `(N, C, S, S)`."""
    parts = [edges(torch.from_numpy(part).float() / 255.0) for part in np.array_split(pixels, len(pixels) // 64 + 1)]
    return np.concatenate([(part * 255.0).round().to(torch.uint8).numpy() for part in parts])


def garments(folder: Path, preprocessing: Preprocessing) -> tuple[Pixels, list[str]]:
    pictures = [decode_image((folder / f"{name}.png").read_bytes()).pixels for name in GARMENTS]
    return np.stack([preprocessing.apply(picture) for picture in pictures]), list(GARMENTS.values())


def cells(
    encoder: Encoder, gallery: NDArray[np.float32], categories: list[str], queries: Pixels, wanted: list[str]
) -> str:
    order = np.random.default_rng(0).permutation(len(gallery))
    gains = np.empty((len(queries), len(gallery)), np.float32)
    for rows, scores in score_blocks(embed_pixels(encoder, queries), gallery, encoder.metric):
        places = rank(scores, order)
        relevant = np.array(wanted)[rows][:, None] == np.array(categories)[None, :]
        gains[rows] = np.take_along_axis(relevant, places, axis=1)
    found, by_query = metrics_of(gains, (1, 10)), Bootstrap([str(row) for row in range(len(queries))])
    return " | ".join(
        f"{(cell := by_query.share(found[name])).value:.3f} [{cell.low:.3f} {cell.high:.3f}]" for name in SHOWN
    )


def main(data: Path, emoji: Path, refs: list[str]) -> None:
    images, photos = (read_images(data / "clothing" / side)[0] for side in ("train", "validation"))
    categories, wanted = ([image.category or "" for image in side] for side in (images, photos))
    shares = np.unique(categories, return_counts=True)
    share = dict(zip(shares[0].tolist(), (shares[1] / len(categories)).tolist(), strict=True))
    for title, labels in (("photos", wanted), ("garments", list(GARMENTS.values()))):
        print(f"chance for {title}: {np.mean([share[label] for label in labels]):.3f}")
    print(f"| encoder | queries | {' | '.join(SHOWN)} |\n|---|---|---|---|")
    for ref in refs:
        encoder = load_encoder(ref)
        prepared = [np.array(load_dataset(side, encoder.preprocessing).images) for side in (images, photos)]
        gallery = embed_pixels(encoder, prepared[0])
        objects, kinds = garments(emoji, encoder.preprocessing)
        for title, queries, labels in (
            ("photos", prepared[1], wanted),
            ("edges of photos", drawn(prepared[1]), wanted),
            ("garments drawn by others", objects, kinds),
            ("edges of those", drawn(objects), kinds),
        ):
            print(f"| {ref} | {title} | {cells(encoder, gallery, categories, queries, labels)} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
