"""Catalogues to calibrate, and searches in them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from indexer.calibrate.pairs import Pairs
from indexer.calibrate.probability import best_others
from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from indexer.search.results import SearchPage
from indexer.search.searcher import Searcher
from tests.conftest import draw_photo


def write_rows(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("item_id", "image"), *rows])
    return path


def index(home: Home, source: Path, encoder: Path | str | None = None) -> dict[str, float]:
    return index_source(home, "default", source, encoder_ref=str(encoder) if encoder else None, processes=0).seconds


def search(searcher: Searcher, number: int = 3, **options: Any) -> SearchPage:
    import io

    buffer = io.BytesIO()
    draw_photo(number).save(buffer, "JPEG", quality=90)
    return searcher.search_image("default", buffer.getvalue(), **options)


def found(home: Home, searcher: Searcher, number: int = 3) -> list[float | None]:
    return [hit.probability for hit in search(searcher, number).results]


def made_up(seed: int = 0, count: int = 600) -> Pairs:
    rng = np.random.default_rng(seed)
    falling = -np.sort(-rng.uniform(0, 1, (count // 10, 10)), axis=1)
    scores, others = falling.ravel(), best_others(falling).ravel()
    labels = rng.random(count) < 1 / (1 + np.exp(7 - 12 * (scores - 0.5 * others)))
    return Pairs(
        scores, others, labels, np.arange(count) // 10, np.arange(count) % 10 == 0, "photos", count // 10, 999,
        np.ones(count, bool), 1.0,
    )  # fmt: skip
