"""Swap tests: what of an encoder's retrieval survives when the background of the query is replaced.

Items i, backgrounds b, photos x(i, b) = mask_i item_i + (1 - mask_i) background_b. A query x(i, b') is searched among
gallery photos x(j, b_j), b' other than b_i; relevant is what shows the same item, and no query is in the gallery.

- swap-recall@k: share of queries with a photo of their item among the first k, metric learning's recall@k
  (`hit@k` of `indexer.evaluate.metrics`).
- swap-MAP@R: MAP@R (Musgrave et al. 2020, section 3.2, https://arxiv.org/abs/2003.08505) of the swapped queries, as
  Kobs, Hotho: On Background Bias in Deep Metric Learning, ICMV 2022, https://arxiv.org/abs/2210.01615, replace
  backgrounds at test time.
- retention: the swapped figure over the clean one, which is of the same items on their plain background.

Intervals are 95 % percentile bootstrap intervals over items: all queries of an item are drawn together, and retention
is a ratio of means over the same items.

Differs from the paper: every figure is a mean over items of the mean over their queries, so that items with more
backgrounds do not weigh more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.evaluate.metrics import Bootstrap, Interval, PerQuery, in_order, metrics_of, rank, score_blocks
from indexer.evaluate.relevance import SameLabel
from indexer.vectors import Floats
from training.reference import Metric

KS = (1, 5, 10)
MAP_AT_R = "map@r"


@dataclass(frozen=True)
class Photos:
    """Search vectors `(N, dim)` of photos, and the item that each shows."""

    vectors: Floats
    items: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.vectors) != len(self.items):
            raise ValueError(f"{len(self.vectors)} vectors are given for {len(self.items)} items; give one each")


class SwapFigure(NamedTuple):
    """A metric of clean and of swapped queries, and the second over the first."""

    clean: Interval
    swapped: Interval
    retention: Interval

    def to_json(self) -> dict[str, Any]:
        return {name: interval.to_json() for name, interval in self._asdict().items()}


def swap_test(
    gallery: Photos,
    clean: Photos,
    swapped: Photos,
    metric: Metric,
    *,
    ks: Sequence[int] = KS,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, SwapFigure]:
    """`recall@k` and `map@r` of queries on their plain background and on others, and how much is retained.

    Args:
        gallery: what is searched.
        clean, swapped: queries; every item of the one is an item of the other and of the gallery.

    Raises:
        ValueError: the items do not match.
    """
    names, figures = np.unique(np.asarray(clean.items, np.str_)), {}
    if set(names.tolist()) != set(swapped.items) or not set(names.tolist()) <= set(gallery.items):
        raise ValueError("clean and swapped queries must show the same items, each of which the gallery shows as well")
    bootstrap = Bootstrap(names.tolist(), replicates=replicates, seed=seed)
    order = np.random.default_rng(seed).permutation(len(gallery.items))
    found = [
        _by_item(query_metrics(gallery, queries, metric, order, ks), queries.items) for queries in (clean, swapped)
    ]
    for name in found[0]:
        before, after = (values[name] for values in found)
        figures[name] = SwapFigure(
            bootstrap.interval(before), bootstrap.interval(after), bootstrap.ratio(after, before)
        )
    return figures


def query_metrics(
    gallery: Photos, queries: Photos, metric: Metric, order: NDArray[np.intp], ks: Sequence[int] = KS
) -> PerQuery:
    """`recall@k` and `map@r` of each query `(Q,)`; equal scores come in the given order of the gallery."""
    judge = SameLabel(list(queries.items), list(gallery.items))
    blocks = []
    for block, scores in score_blocks(queries.vectors, gallery.vectors, metric):
        values = metrics_of(in_order(judge.gains(block), rank(scores, order)), ks)
        blocks.append({**{f"recall@{k}": values[f"hit@{k}"] for k in ks}, MAP_AT_R: values[MAP_AT_R]})
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _by_item(values: PerQuery, items: Sequence[str]) -> PerQuery:
    """The mean over the queries of each item, in the order of their names."""
    _, item, counts = np.unique(np.asarray(items, np.str_), return_inverse=True, return_counts=True)
    return {name: np.bincount(item, figures) / counts for name, figures in values.items()}
