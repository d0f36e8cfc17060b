"""Retrieval metrics as pure functions over rankings, and their bootstrap intervals.

A ranking is given as gains `(Q, M)`: per query the relevance grade of each gallery image, best match first (0 is not
relevant). Definitions, with R the number of relevant images of a query:

- precision@k: relevant among the first k, over k (also where the gallery has fewer than k; as trec_eval).
- recall@k: relevant among the first k, over R. hit@k: 1 where there is any, which metric learning calls recall@k.
- map: mean over the relevant ranks i of precision@i, over R (average precision; Manning et al. 2008, section 8.4).
- map@r: 1/R sum over i <= R of precision@i [image i is relevant] (Musgrave et al. 2020, section 3.2,
  https://arxiv.org/abs/2003.08505). r-precision: precision@R.
- ndcg@k: DCG = sum over i <= k of gain_i / log2(i + 1), over that of the best order (Jarvelin, Kekalainen 2002, with
  the linear gain of trec_eval's ndcg_cut).
- mrr: 1 over the rank of the first relevant image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.vectors import Floats
from training.reference import Metric

Gains = NDArray[np.float32]
PerQuery = dict[str, NDArray[np.float64]]
BLOCK_NUMBERS = 16_000_000  # scores held at a time: 64 MB, so that 10,000 x 60,000 needs no more


class Interval(NamedTuple):
    """A mean with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, object]:
        return {"value": self.value, "ci": [self.low, self.high]}


def score_blocks(queries: Floats, gallery: Floats, metric: Metric) -> Iterator[tuple[slice, Floats]]:
    """Exact scores of the queries against the whole gallery, block by block: cosines, or negated squared distances."""
    rows = max(1, BLOCK_NUMBERS // max(1, len(gallery)))
    squares = (gallery**2).sum(axis=1)
    for start in range(0, len(queries), rows):
        block = slice(start, min(start + rows, len(queries)))
        scores: Floats = queries[block] @ gallery.T
        if metric == "l2":
            scores = 2 * scores - squares
        yield block, scores


def rank(scores: Floats, order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Gallery positions `(Q, M)`, best first; equal scores come in the given (shuffled) order of the gallery."""
    ranked = np.argsort(-scores[:, order], axis=1, kind="stable")
    return order[ranked]


def metrics_of(gains: Gains, ks: Sequence[int]) -> PerQuery:
    """All metrics of each query `(Q,)`; NaN for a query that has nothing relevant in the gallery."""
    hits = (gains > 0).astype(np.float64)
    relevant = hits.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.cumsum(hits, axis=1)
        ranks = np.arange(1, gains.shape[1] + 1)
        precision = found / ranks
        values: PerQuery = {}
        for k in ks:
            among = found[:, min(k, gains.shape[1]) - 1] if gains.shape[1] else relevant
            values[f"precision@{k}"] = among / k
            values[f"recall@{k}"] = among / relevant
            values[f"hit@{k}"] = (among > 0).astype(np.float64)
            values[f"ndcg@{k}"] = _dcg(gains, k) / _dcg(-np.sort(-gains, axis=1), k)
        values["map"] = (precision * hits).sum(axis=1) / relevant
        within = ranks <= relevant[:, None]
        values["map@r"] = (precision * hits * within).sum(axis=1) / relevant
        values["r-precision"] = (hits * within).sum(axis=1) / relevant
        first = np.argmax(hits, axis=1) if gains.shape[1] else np.zeros(len(gains))
        values["mrr"] = 1.0 / (first + 1)
    return {name: np.where(relevant > 0, value, np.nan) for name, value in values.items()}


def _dcg(gains: Gains, k: int) -> NDArray[np.float64]:
    first = gains[:, :k].astype(np.float64)
    total: NDArray[np.float64] = (first / np.log2(np.arange(2, first.shape[1] + 2))).sum(axis=1)
    return total


class Bootstrap:
    """Resampling of items: queries of one item are drawn together, since they are not independent.

    Args:
        items: `(Q,)` the item of each query.
        replicates: how many resamples.
        seed: the same seed draws the same resamples, so differences between encoders are paired.
    """

    def __init__(self, items: Sequence[str], *, replicates: int = 1000, seed: int = 0) -> None:
        names, self._item = np.unique(np.asarray(items, dtype=np.str_), return_inverse=True)
        count = len(names)
        rng = np.random.default_rng(seed)
        self._weights = (
            rng.multinomial(count, np.full(count, 1 / count), size=replicates) if count else np.zeros((replicates, 0))
        )

    def interval(self, values: NDArray[np.float64]) -> Interval:
        """Mean over the queries that have a value, with the 2.5 % and 97.5 % percentiles of the resampled means."""
        known = ~np.isnan(values)
        if not known.any():
            return Interval(float("nan"), float("nan"), float("nan"))
        items = self._weights.shape[1]
        sums = np.bincount(self._item[known], weights=values[known], minlength=items)
        counts = np.bincount(self._item[known], minlength=items)
        drawn = self._weights @ counts
        means = (self._weights @ sums)[drawn > 0] / drawn[drawn > 0]
        low, high = np.percentile(means, [2.5, 97.5])
        return Interval(float(values[known].mean()), float(low), float(high))
