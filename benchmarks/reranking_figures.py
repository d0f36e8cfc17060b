"""Gain of a second stage: `python benchmarks/reranking_figures.py GALLERY.npz [QUERIES.npz]`.

The files are outputs of `nitamono embed` with a cosine encoder. With two files, relevance is by category, the folder of
each id. With one file, relevance is by item: each photo of an item is the query in turn, and is excluded from
everything that is computed from the catalogue. Prints a Markdown table of means, and of differences to the plain search
with 95 % bootstrap intervals over items.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.measures.metrics import Bootstrap, PerQuery, in_order, metrics_of, rank
from indexer.vectors import Floats
from indexer.vectors.exact import exact_scores
from indexer.vectors.faiss import FaissIndex
from indexer.vectors.neighbours import nearest_others
from indexer.vectors.rerank import NeighbourLists, augment_database, distances_of, expand_query, k_reciprocal

Names = NDArray[np.str_]
FIGURES = ("precision@1", "precision@10", "map", "map@r")
RECIPROCAL = (
    (6, 2, 0.5, 100),
    (6, 2, 0.3, 100),
    (10, 3, 0.3, 100),
    (20, 6, 0.5, 100),
    (20, 6, 0.3, 100),
    (20, 6, 0.3, 200),
)


class Split(NamedTuple):
    gallery: Floats
    queries: Floats
    relevant: Floats  # (nq, n), 0 or 1
    items: list[str]  # item of each query


def splits(paths: list[str]) -> Iterator[Split]:
    files = [np.load(path, allow_pickle=False) for path in paths]
    ids, vectors = files[0]["ids"], files[0]["vectors"]
    if len(files) == 2:
        asked: Names = files[1]["ids"]
        kinds = [np.array([name.split("/")[0] for name in names]) for names in (asked, ids)]
        yield Split(vectors, files[1]["vectors"], _equal(*kinds), asked.tolist())
        return
    turn = np.array([np.count_nonzero(ids[:place] == name) for place, name in enumerate(ids)])
    for number in range(int(turn.max()) + 1):
        out = turn == number
        yield Split(vectors[~out], vectors[out], _equal(ids[out], ids[~out]), ids[out].tolist())


def _equal(queries: Names, gallery: Names) -> Floats:
    return (queries[:, None] == gallery[None]).astype(np.float32)


def scores_of(split: Split) -> Iterator[tuple[str, Floats]]:
    """Scores `(nq, n)` of each method."""
    gallery, queries = split.gallery, split.queries
    plain = exact_scores(queries, gallery, "cosine")
    yield "plain", plain
    order = np.argsort(-plain, axis=1, kind="stable")
    for n in (1, 2, 10):
        near = [
            expand_query(query[None], gallery[row[:n]], "cosine") for query, row in zip(queries, order, strict=True)
        ]
        yield f"expand, {n}", exact_scores(np.concatenate(near), gallery, "cosine")
    lists = nearest_others(FaissIndex.exact(gallery, "cosine"), gallery, 20)
    for n in (1, 2, 10):
        augmented = augment_database(gallery, lists.positions[:, :n], "cosine")
        yield f"augmented database, {n}", exact_scores(queries, augmented, "cosine")
    for k1, k2, share, depth in RECIPROCAL:
        yield f"reciprocal, {k1}, {k2}, {share}, first {depth}", _reciprocal(lists, plain, order, k1, k2, share, depth)


def _reciprocal(
    lists: NeighbourLists, plain: Floats, order: NDArray[np.intp], k1: int, k2: int, share: float, depth: int
) -> Floats:
    cut = NeighbourLists(lists.positions[:, :k1], lists.scores[:, :k1])
    guests, scores = NeighbourLists.empty(k1), plain.copy()
    for row, places in enumerate(order):
        near = NeighbourLists(places[None, :k1].astype(np.int32), plain[row, places[:k1]][None])
        first = places[:depth].astype(np.int64)
        distances = distances_of(plain[row, first], "cosine")
        final = k_reciprocal(cut, near, first, guests, distances, "cosine", k2=k2, original_share=share)
        scores[row, first] = 10 - final  # above all cosine similarities
    return scores


def main(paths: list[str]) -> None:
    found: dict[str, list[PerQuery]] = {}
    items: list[str] = []
    for split in splits(paths):
        items += split.items
        shuffled = np.random.default_rng(0).permutation(len(split.gallery))
        for name, scores in scores_of(split):
            figures = metrics_of(in_order(split.relevant, rank(scores, shuffled)), (1, 10))
            found.setdefault(name, []).append(figures)
    bootstrap = Bootstrap(items)
    print(f"| method | {' | '.join(FIGURES)} |\n|{'---|' * (len(FIGURES) + 1)}")
    plain = {figure: np.concatenate([part[figure] for part in found["plain"]]) for figure in FIGURES}
    for name, parts in found.items():
        cells = []
        for figure in FIGURES:
            values = np.concatenate([part[figure] for part in parts])
            gain = bootstrap.interval(values - plain[figure])
            cells.append(
                f"{np.nanmean(values):.3f}"
                + (f" ({gain.value:+.3f} [{gain.low:+.3f} {gain.high:+.3f}])" if name != "plain" else "")
            )
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1:])
