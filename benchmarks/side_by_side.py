"""Background robustness of encoders on several swap sets: `python benchmarks/side_by_side.py REF...`.

The sets are the drawn solids (`--items` of them, as in `nitamono compare --studio solids`), the sample shop with its
busy gallery backgrounds (`--studio shop`), and each `--data SOURCE` (as in `nitamono compare --data`, with given or
found masks). A single easy set is misleading, and so is a figure without the share of photos that it excludes. Prints a
Markdown table with 95 % intervals.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from indexer.compare.comparison import measure_swaps
from indexer.compare.verdict import percent
from indexer.measures.robustness import MAP_AT_R
from indexer.swaps.sources import photo_set, studio_set
from indexer.swaps.swap_set import SwapSet
from training.data.sources import read_images
from training.encoder import load_encoder


def sets(items: int, studios: list[str], sources: list[Path]) -> Iterator[SwapSet]:
    for stock in studios:
        yield studio_set("shop" if stock == "shop" else "solids", items, factors=False)
    for source in sources:
        yield photo_set(source.name, read_images(source)[0], limit=items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", nargs="*", default=["default"])
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--studio", nargs="*", default=["solids", "shop"])
    parser.add_argument("--data", type=Path, action="append", default=[])
    asked = parser.parse_args()
    encoders = {name: load_encoder(name) for name in asked.encoder}
    head = ("set", "masks", "left out", "encoder", "clean MAP@R", "swapped MAP@R", "retention", "background share")
    print(f"| {' | '.join(head)} | item share | displacement |", "|---" * (len(head) + 2) + "|", sep="\n")
    for made in sets(asked.items, asked.studio, asked.data):
        for name, encoder in encoders.items():
            found = measure_swaps(encoder, made)
            figure = found.swap.figures[MAP_AT_R]
            shares = [found.shares[factor].to_text() for factor in ("background", "item")]
            cells = [
                made.name, made.mask_kind, f"{made.cut.left_out:.0%} of {made.cut.of}", name, figure.clean.to_text(),
                figure.swapped.to_text(), percent(figure.retention), *shares, found.displacement.to_text(),
            ]  # fmt: skip
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
