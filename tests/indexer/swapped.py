"""Shared fixtures: a small drawn swap set, because drawing is slow, and catalogues with masks."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from PIL import Image

from indexer.swaps.sources import studio_set
from indexer.swaps.swap_set import SwapSet

KINDS = ("bag", "mug")


class Write(Protocol):
    def __call__(
        self,
        photos: list[int],
        *,
        bare: tuple[str, ...] = (),
        broken: tuple[str, ...] = (),
        doubled: tuple[str, ...] = (),
    ) -> Path: ...


@pytest.fixture(scope="session")
def drawn_with_counts() -> tuple[SwapSet, list[int]]:
    """Eight items of the shop on four backgrounds at 48 pixels, and the counts reported while drawing."""
    counts: list[int] = []
    return studio_set("shop", 8, per_item=4, side=48, advance=counts.append), counts


@pytest.fixture(scope="session")
def drawn(drawn_with_counts: tuple[SwapSet, list[int]]) -> SwapSet:
    return drawn_with_counts[0]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A manifest of items with the given numbers of photos: a coloured square on noise, with a mask file.

    Photos in `bare` are white and have no mask, those in `broken` are unreadable, those in `doubled` repeat the first.
    """

    def written(
        photos: list[int],
        *,
        bare: tuple[str, ...] = (),
        broken: tuple[str, ...] = (),
        doubled: tuple[str, ...] = (),
    ) -> Path:
        rows = []
        for item, count in enumerate(photos):
            for photo in range(count):
                name = f"{item:02d}-{photo}"
                rng = np.random.default_rng([item, 0 if name in doubled else photo])
                picture = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                mask = np.zeros((64, 64), np.uint8)
                top, left = rng.integers(8, 24, 2)
                mask[top : top + 32, left : left + 32] = 255
                picture[mask > 0] = np.random.default_rng(item).integers(0, 256, 3)
                if name in bare:
                    picture[:] = 255
                Image.fromarray(picture).save(tmp_path / f"{name}.png")
                Image.fromarray(mask).save(tmp_path / f"{name}-mask.png")
                if name in broken:
                    (tmp_path / f"{name}.png").write_bytes(b"no photo")
                rows.append({
                    "item_id": f"item {item:02d}", "image": f"{name}.png", "category": KINDS[item % 2],
                    "mask": "" if name in bare else f"{name}-mask.png",
                })  # fmt: skip
        with (tmp_path / "shop.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["item_id", "image", "mask", "category"])
            writer.writeheader()
            writer.writerows(rows)
        return tmp_path / "shop.csv"

    return written
