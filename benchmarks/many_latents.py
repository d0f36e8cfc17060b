"""Latents of a large catalogue: `python benchmarks/many_latents.py DATA OUT ENCODER... [--count 1000000]`.

A catalogue of that size is not at hand, so its pictures are made from 60,000 garments (Fashion-MNIST, tinted) and 3,068
photos of clothes: each is turned, scaled, shifted, recoloured and put on a plain or textured background, which gives
several pictures of one item, as shops have them, and no two alike. Encoders trained by this project embed them.
Queries are made from other garments and photos. DATA is the output of `benchmarks/prepare_data.py`. Writes
OUT/ENCODER.npy, float32 `(count, dim)`, and OUT/ENCODER-queries.npy, `(10,000, dim)`; fails if two rows are equal.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from training.encoder import load_encoder

SIDE = 48
QUERIES = 10_000
BATCH = 250
PHOTO_SHARE = 0.3  # of the pictures, made from photos of clothes
PLAIN_SHARE = 0.4  # of the pictures, on a plain background


def read_folder(folder: Path) -> Tensor:
    """uint8 `(n, 3, SIDE, SIDE)`, the files of a folder in the order of their paths."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in {".png", ".jpg", ".jpeg"}):
        with Image.open(path) as image:
            small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        found.append(torch.from_numpy(np.asarray(small).transpose(2, 0, 1).copy()))
    return torch.stack(found)


class Pictures:
    """Draws pictures of a catalogue; the same seed draws the same ones."""

    def __init__(self, data: Path, side: str, seed: int) -> None:
        other = {"train": "train", "queries": "validation"}[side]
        self._garments = read_folder(data / "fashion" / ("train" if side == "train" else "test"))[:, :1].contiguous()
        self._photos = read_folder(data / "clothing" / other)
        self._textures = read_folder(data / "textures" / "train")
        self._random = torch.Generator().manual_seed(seed)

    def draw(self, count: int) -> Tensor:
        """uint8 `(count, 3, SIDE, SIDE)`, photos first."""
        photos = round(count * PHOTO_SHARE)
        images, masks = self._items(photos, count - photos)
        angle = (self._uniform(count) - 0.5) * math.radians(50)
        scale = 0.6 + 0.7 * self._uniform(count)
        flip = torch.where(self._uniform(count) < 0.5, -1.0, 1.0)
        shift = (self._uniform(count, 2) - 0.5) * 0.5
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        rows = [torch.stack([cos * flip, -sin, shift[:, 0]], 1), torch.stack([sin * flip, cos, shift[:, 1]], 1)]
        grid = F.affine_grid(torch.stack(rows, 1), [count, 4, SIDE, SIDE], align_corners=False)
        moved = F.grid_sample(torch.cat([images, masks], 1), grid, align_corners=False)
        gain, offset = 0.7 + 0.6 * self._uniform(count, 3, 1, 1), (self._uniform(count, 1, 1, 1) - 0.5) * 0.2
        items, shown = (moved[:, :3] * gain + offset).clamp(0, 1), moved[:, 3:]
        composed = items * shown + self._backgrounds(count) * (1 - shown)
        return (composed * 255).round().byte()

    def _items(self, photos: int, garments: int) -> tuple[Tensor, Tensor]:
        photo = self._photos[self._choose(photos, len(self._photos))].float() / 255
        garment = self._garments[self._choose(garments, len(self._garments))].float() / 255
        tint = 0.2 + 0.8 * self._uniform(garments, 3, 1, 1)
        masks = torch.cat([torch.ones_like(photo[:, :1]), (garment > 0.08).float()])
        return torch.cat([photo, garment * tint]), masks

    def _backgrounds(self, count: int) -> Tensor:
        texture = self._textures[self._choose(count, len(self._textures))].float() / 255
        plain = self._uniform(count, 3, 1, 1).sqrt().expand_as(texture)
        return torch.where(self._uniform(count, 1, 1, 1) < PLAIN_SHARE, plain, texture)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._random)

    def _choose(self, count: int, among: int) -> Tensor:
        return torch.randint(among, (count,), generator=self._random)


def equal_rows(vectors: np.ndarray) -> int:
    """Number of rows that equal an earlier one, by a 64-bit hash of their bytes."""
    mixing = np.random.default_rng(0).integers(1, 2**63, vectors.shape[1], dtype=np.uint64) | np.uint64(1)
    hashes = np.concatenate(
        [
            (block.view(np.uint32).astype(np.uint64) * mixing).sum(1, dtype=np.uint64)
            for block in np.array_split(vectors, max(1, len(vectors) // 100_000))
        ]
    )
    return len(hashes) - len(np.unique(hashes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("encoders", nargs="+", metavar="ENCODER")
    parser.add_argument("--count", type=int, default=1_000_000)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    encoders = {Path(ref).name: load_encoder(ref) for ref in asked.encoders}
    for side, count, seed in (("queries", QUERIES, 1), ("train", asked.count, 0)):
        ending = "-queries.npy" if side == "queries" else ".npy"
        pictures = Pictures(asked.data, side, seed)
        vectors = {
            name: np.lib.format.open_memmap(asked.out / (name + ending), "w+", np.float32, (count, encoder.dim))
            for name, encoder in encoders.items()
        }
        for start in range(0, count, BATCH):
            drawn = pictures.draw(min(BATCH, count - start)).float()
            for name, encoder in encoders.items():
                sized = F.interpolate(drawn, encoder.preprocessing.size, mode="bilinear", antialias=True)
                vectors[name][start : start + len(drawn)] = encoder.encode(sized.round().byte()).numpy()
            if start % (100 * BATCH) == 0:
                print(f"{side}: {start:,} of {count:,}", file=sys.stderr, flush=True)
        for name, rows in vectors.items():
            rows.flush()
            if same := equal_rows(rows):
                raise SystemExit(f"{name}: {same} rows equal another one")


if __name__ == "__main__":
    main()
