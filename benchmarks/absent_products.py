"""Calibration of probabilities if many searched products are absent: `python benchmarks/absent_products.py`.

Draws studio items with five photos each, indexes four photos of some of them, and searches for the fifth photo of all
items, so that the product is in the catalogue for a share `--present` of the queries. Calibrates with the default
setting, with the true share, and with the share estimated from the logged queries (`auto`). Prints for each setting the
mean probability of hits with a probability of .5 or more, and the share of these hits that are right, with an exact
95 % interval.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from indexer.calibrate.calibrate import calibrate
from indexer.catalogue.home import Home
from indexer.errors import CalibrationError
from indexer.ingest.ingest import index_source
from indexer.measures.metrics import Bootstrap
from indexer.search.searcher import Searcher
from training.data.studio.catalogue import write_catalogue

SHOWN = 0.5


def photos(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with (folder / "catalogue.csv").open() as file:
        for row in csv.DictReader(file):
            found.setdefault(row["item_id"], []).append(row["image"])
    return found


def ask(
    searcher: Searcher, folder: Path, queries: Sequence[tuple[str, str]]
) -> tuple[list[float], list[bool], list[str]]:
    """Probability, correctness and query of every hit with a probability of .5 or more."""
    claimed, right, asked = [], [], []
    for item_id, image in queries:
        for hit in searcher.search_image("default", (folder / image).read_bytes()).results:
            if (hit.probability or 0.0) >= SHOWN:
                claimed.append(float(hit.probability or 0.0))
                right.append(hit.item_id == item_id)
                asked.append(image)
    return claimed, right, asked


def log(home: Home, searcher: Searcher, folder: Path, queries: Sequence[tuple[str, str]], encoder_id: str) -> None:
    """Log the vectors of the queries, as a server does."""
    from training.data.decode import decode_image
    from training.embedder import prepare

    embedder, at = searcher.embedder(encoder_id), datetime.now(UTC)
    vectors = [
        embedder.embed(prepare(embedder, decode_image((folder / image).read_bytes())))[0] for _, image in queries
    ]
    collection_id = home.catalogue.search_state("default").collection_id
    stored = [(at, vector) for vector in vectors]
    home.catalogue.queries.add(collection_id, encoder_id, stored, keep=len(stored))


def measure(folder: Path, encoder: str, truth: float, scratch: Path) -> list[str]:
    items = photos(folder)
    names = np.random.default_rng(0).permutation(sorted(items)).tolist()
    held = names[: round(truth * len(names))]
    listing = folder / "listed.csv"
    with listing.open("w", newline="") as file:
        rows = [(name, image) for name in held for image in items[name][:-1]]
        csv.writer(file).writerows([("item_id", "image"), *rows])
    queries = [(name, items[name][-1]) for name in names]
    lines = []
    with Home.open(scratch / encoder, create=True) as home:
        index_source(home, "default", listing, encoder_ref=encoder)
        encoder_id = str(home.catalogue.search_state("default").encoder_id)
        searcher = Searcher(home)
        log(home, searcher, folder, queries, encoder_id)
        settings: tuple[float | Literal["auto"] | None, ...] = (None, truth, "auto")
        for setting in settings:
            try:
                found = calibrate(home, "default", present=setting)
            except CalibrationError as exc:
                lines.append(f"| {encoder} | {setting} | refused: {exc} | | | |")
                continue
            claimed, right, asked = ask(searcher, folder, queries)
            share = Bootstrap(asked).share(np.array(right, np.float64))
            lines.append(
                f"| {encoder} | {setting or 'default'} | {found.present:.2f} | {len(right)} | {np.mean(claimed):.3f} | "
                f"{share.to_text()} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", action="append", default=[])
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--present", type=float, default=0.5)
    parser.add_argument("--stock", default="shop")
    parser.add_argument("--seed", type=int, default=77)
    asked = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "drawn"
        write_catalogue(
            folder, items=asked.items, photos_per_item=5, size=96, stock=asked.stock, seed=asked.seed, processes=0
        )
        for encoder in asked.encoder or ["default"]:
            lines += measure(folder, encoder, asked.present, Path(scratch))
    print(f"{asked.items} items of the {asked.stock}; share of searches whose product is present: {asked.present:g}\n")
    print("| encoder | `--present` | share | hits >= .5 | claimed | right |", "|---|---|---|---|---|---|", sep="\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
