"""Cost of a second stage: `python benchmarks/reranking.py [N]...` (3,000 and 100,000 vectors by default).

Uses clustered random unit vectors with 192 dimensions, five for each item, in memory. Each search is by vector, for 10
items, on one thread. Reports median CPU time in milliseconds, with alternating methods, and relative to the plain
search of the same run. Neighbour lists are computed only within blocks of a thousand vectors to save time; computing
them in full, which is quadratic in the number of vectors, is timed for 3,000 vectors.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import thread_time

import faiss
import numpy as np

from indexer.catalogue.records import Rerank, SearchState
from indexer.generations.manifest import Manifest
from indexer.search.intact import LoadedFiles
from indexer.search.second_stage import second_stage
from indexer.search.view import ItemRows, View
from indexer.vectors import Floats
from indexer.vectors.faiss import FaissIndex
from indexer.vectors.neighbours import nearest_others
from indexer.vectors.rerank import K1, NeighbourLists

DIM = 192
PER_ITEM = 5
THOUSAND = 1000
SEARCHES = 60
METHODS: tuple[Rerank, ...] = ("none", "expand", "reciprocal")


def draw(count: int, rng: np.random.Generator) -> Floats:
    """Vectors `(count, DIM)` in clusters of 20, which are grouped around a centre for every thousand."""
    centres = rng.normal(size=(count // THOUSAND + 1, DIM)).repeat(THOUSAND, axis=0)[:count]
    kinds = rng.normal(size=(count // 20 + 1, DIM)).repeat(20, axis=0)[:count]
    vectors = centres + 0.7 * kinds + 0.5 * rng.normal(size=(count, DIM))
    unit: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def lists_of(vectors: Floats) -> NeighbourLists:
    parts = []
    for start in range(0, len(vectors), THOUSAND):
        own = vectors[start : start + THOUSAND]
        near = nearest_others(FaissIndex.exact(own, "cosine"), own, K1)
        parts.append(NeighbourLists(near.positions + np.int32(start), near.scores))
    return NeighbourLists(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def view_of(vectors: Floats) -> View:
    count = len(vectors)
    manifest = Manifest("benchmark", 1, "benchmark", DIM, "cosine", count, "Flat", 1.0, 0, {})
    ids = np.stack([np.arange(count), np.arange(count) // PER_ITEM], axis=1).astype(np.int64)
    return View(
        state=SearchState(1, 1, "benchmark", 0, 0),
        manifest=manifest,
        index=FaissIndex.exact(vectors, "cosine"),
        ids=ids,
        rows=ItemRows.of(ids[:, 1]),
        removed=frozenset(),
        live_ids=np.empty((0, 2), np.int64),
        live_vectors=np.empty((0, DIM), np.float32),
        calibration=None,
        lists=lists_of(vectors),
        files=LoadedFiles(Path("none"), lambda: None),
    )


def main(counts: list[int]) -> None:
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    print("| vectors | method | ms a query | times plain |\n|---|---|---|---|")
    for count in counts:
        view = view_of(draw(count, rng))
        everything = view.subset(None)
        spent: dict[Rerank, list[float]] = {method: [] for method in METHODS}
        for query in draw(SEARCHES * THOUSAND, rng)[::THOUSAND]:
            for method in METHODS:
                began = thread_time()
                second_stage(view, query[None], 10, everything, None, method, everything)
                spent[method].append(thread_time() - began)
        plain = float(np.median(spent["none"]))
        for method, seconds in spent.items():
            median = float(np.median(seconds))
            print(f"| {count:,} | `{method}` | {1000 * median:.2f} | {median / plain:.2f} |")
    vectors = draw(3000, rng)
    index = FaissIndex.exact(vectors, "cosine")
    began = thread_time()
    nearest_others(index, vectors, K1)
    print(f"\nLists of 3,000 vectors: {thread_time() - began:.2f} s")


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [3000, 100_000])
