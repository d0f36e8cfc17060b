"""Retrieval metrics as pure functions of rankings, and their confidence intervals.

A ranking is given as gains `(Q, M)`: for each query the relevance grade of every gallery image, best match first; 0 is
not relevant. Definitions, with R the number of relevant images of a query:

- precision@k: relevant images among the first k, divided by k (also if the gallery has fewer than k; as in trec_eval).
- recall@k: relevant images among the first k, divided by R.
- hit@k: 1 if any of the first k is relevant; metric learning calls this recall@k.
- map: sum of precision@i over the ranks i of relevant images, divided by R (average precision; Manning et al. 2008,
  section 8.4).
- map@r: 1/R sum over i <= R of precision@i [image i is relevant] (Musgrave et al. 2020, section 3.2,
  https://arxiv.org/abs/2003.08505). r-precision: precision@R.
- ndcg@k: DCG = sum over i <= k of gain_i / log2(i + 1), divided by the DCG of the ideal order (Jarvelin, Kekalainen
  2002, with the linear gain of trec_eval's ndcg_cut).
- mrr: reciprocal rank of the first relevant image.
- knn@k: whether the majority label of the first k is the query's (Cover, Hart: Nearest Neighbor Pattern Classification,
  1967, https://doi.org/10.1109/TIT.1967.1053964; ties go to the label with the larger sum of scores, as in Dudani: The
  Distance-Weighted k-Nearest-Neighbor Rule, 1976, https://doi.org/10.1109/TSMC.1976.5408784). The mean over queries is
  the accuracy of that classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.measures.intervals import (
    ROUNDING,
    TAILS,
    effective_size,
    exact_interval,
    expanded_tails,
    with_pseudo_item,
)
from indexer.vectors import Floats
from training.reference import Metric

Gains = NDArray[np.float32]
PerQuery = dict[str, NDArray[np.float64]]
BLOCK_NUMBERS = 4_000_000  # scores ranked at a time: 16 MB, even for 10,000 queries x 60,000 images
PASS_NUMBERS = 100_000_000  # scores held at a time if the gallery is encoded again for each pass: 400 MB


class Interval(NamedTuple):
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, object]:
        return {"value": self.value, "ci": [self.low, self.high]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Interval:
        """The interval of a stored document, in which null stands for NaN."""
        return cls(*(float("nan") if end is None else end for end in (document["value"], *document["ci"])))

    def to_text(self) -> str:
        return "-" if np.isnan(self.value) else f"{self.value:.3f} [{self.low:.3f} {self.high:.3f}]"


def score_blocks(queries: Floats, gallery: Floats, metric: Metric) -> Iterator[tuple[slice, Floats]]:
    """Exact scores of the queries against the whole gallery in blocks of queries; larger is better.

    Cosine similarities, or negative squared distances up to a constant for each query.
    """
    rows = max(1, BLOCK_NUMBERS // max(1, len(gallery)))
    for start in range(0, len(queries), rows):
        block = slice(start, min(start + rows, len(queries)))
        yield block, _scores(queries[block], gallery, metric)


def score_chunks(
    queries: Floats, gallery: Callable[[], Iterable[Floats]], count: int, metric: Metric
) -> Iterator[tuple[slice, Floats]]:
    """Like `score_blocks`, for a gallery of `count` vectors that `gallery()` yields in chunks, once for each pass."""
    rows = max(1, PASS_NUMBERS // max(1, count))
    step = max(1, BLOCK_NUMBERS // max(1, count))
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows]
        scores = np.empty((len(block), count), np.float32)
        place = 0
        for chunk in gallery():
            scores[:, place : place + len(chunk)] = _scores(block, chunk, metric)
            place += len(chunk)
        for first in range(0, len(block), step):
            part = scores[first : first + step]
            yield slice(start + first, start + first + len(part)), part


def _scores(queries: Floats, gallery: Floats, metric: Metric) -> Floats:
    scores: Floats = queries @ gallery.T
    if metric == "l2":  # without the query's own norm, which does not change the ranking
        scores *= 2
        scores -= np.einsum("ij,ij->i", gallery, gallery)
    return scores


def rank(scores: Floats, order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Rank the gallery: positions `(Q, M)`, best first; ties follow the given (shuffled) order of the gallery.

    Score and position in that order are packed into one 64-bit integer, which NumPy sorts eight times faster than it
    computes a stable argsort of floats. NaN scores come last.
    """
    falling = 0.0 - scores[:, order].astype(np.float32, copy=False)  # never -0.0, which would not equal 0.0
    falling[np.isnan(falling)] = np.inf
    bits = falling.view(np.int32)
    keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)  # ordered like the floats
    keys <<= 32
    keys |= np.arange(scores.shape[1])
    keys.sort(axis=1)
    keys &= 0xFFFFFFFF
    ranked: NDArray[np.intp] = order[keys]
    return ranked


def in_order(values: Gains, ranking: NDArray[np.intp]) -> Gains:
    """Values `(Q, M)` of gallery positions, reordered by a ranking `(Q, M)`."""
    ordered = np.empty(ranking.shape, values.dtype)
    for row, places in enumerate(ranking):  # several times faster than take_along_axis
        np.take(values[row], places, out=ordered[row])
    return ordered


def metrics_of(gains: Gains, ks: Sequence[int]) -> PerQuery:
    """All metrics of each query `(Q,)`; NaN for queries without any relevant image in the gallery."""
    queries, length = gains.shape
    row, place = np.divmod(
        np.flatnonzero(gains > 0), max(length, 1)
    )  # of relevant images, best first within each query
    relevant = np.bincount(row, minlength=queries)
    before = np.cumsum(relevant) - relevant
    precision = (np.arange(len(row)) - before[row] + 1) / (place + 1)  # at the ranks of relevant images

    def total(chosen: NDArray[np.bool_], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        picked = None if weights is None else weights[chosen]
        return np.bincount(row[chosen], picked, minlength=queries).astype(np.float64)

    best = _best(gains, max(ks))
    within = place < relevant[row]
    first = np.zeros(queries, dtype=np.intp)
    first[relevant > 0] = place[before[relevant > 0]]
    values: PerQuery = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for k in ks:
            among = total(place < k)
            values[f"precision@{k}"] = among / k
            values[f"recall@{k}"] = among / relevant
            values[f"hit@{k}"] = (among > 0).astype(np.float64)
            values[f"ndcg@{k}"] = _dcg(gains, k) / _dcg(best, k)
        values["map"] = np.bincount(row, precision, minlength=queries) / relevant
        values["map@r"] = total(within, precision) / relevant
        values["r-precision"] = total(within) / relevant
        values["mrr"] = 1.0 / (first + 1)
    return {name: np.where(relevant > 0, value, np.nan) for name, value in values.items()}


def knn_correct(scores: Floats, labels: NDArray[np.int64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """knn@k: 1 for queries `(Q,)` whose label wins the vote of their k neighbours, otherwise 0.

    Args:
        scores: `(Q, k)` scores of the neighbours, best first; neighbours with -inf do not vote.
        labels: `(Q, k)` labels of the neighbours; those below 0 do not vote.
        truth: `(Q,)` labels of the queries.
    """
    voting = (labels >= 0) & np.isfinite(scores)
    same = (labels[:, :, None] == labels[:, None, :]) & voting[:, :, None] & voting[:, None, :]  # (Q, k, k)
    votes = same.sum(axis=2)
    # Between labels with equally many votes, a constant offset of a query's scores cancels.
    weight = np.where(same, scores[:, None, :], 0.0).sum(axis=2, dtype=np.float64)
    weight[votes < votes.max(axis=1, keepdims=True)] = -np.inf
    winner = np.take_along_axis(labels, weight.argmax(axis=1)[:, None], axis=1)[:, 0]
    correct: NDArray[np.bool_] = voting.any(axis=1) & (winner == truth)
    return correct.astype(np.float64)


def _best(gains: Gains, k: int) -> Gains:
    """The k largest gains of each query in descending order."""
    if gains.shape[1] > k:
        gains = -np.partition(-gains, k, axis=1)[:, :k]
    return -np.sort(-gains, axis=1)


def _dcg(gains: Gains, k: int) -> NDArray[np.float64]:
    first = gains[:, :k].astype(np.float64)
    total: NDArray[np.float64] = (first / np.log2(np.arange(2, first.shape[1] + 2))).sum(axis=1)
    return total


NO_INTERVAL = Interval(float("nan"), float("nan"), float("nan"))


class Bootstrap:
    """Bootstrap intervals over items: queries of one item are resampled together, because they are not independent.

    `share`, `difference` and `retention` are for values in [0, 1] and stay valid at the ends of that range, see
    `indexer.measures.intervals`; `interval` and `ratio` are for unbounded values.

    Args:
        items: `(Q,)` the item of each query.
        replicates: number of resamples.
        seed: the same seed draws the same resamples, so differences between encoders are paired.
    """

    def __init__(self, items: Sequence[str], *, replicates: int = 1000, seed: int = 0) -> None:
        names, self._item = np.unique(np.asarray(items, dtype=np.str_), return_inverse=True)
        self._count, self._replicates, self._seed = len(names), replicates, seed

    @cached_property
    def _weights(self) -> NDArray[np.int64]:
        """Number of times that each resample draws each item `(replicates, items)`."""
        count, rng = self._count, np.random.default_rng(self._seed)
        if not count:
            return np.zeros((self._replicates, 0), np.int64)
        return rng.multinomial(count, np.full(count, 1 / count), size=self._replicates)

    @cached_property
    def _augmented(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        return with_pseudo_item(self._count, self._replicates, self._seed)

    def share(self, values: NDArray[np.float64]) -> Interval:
        """Mean of values in [0, 1], ignoring NaN; the interval never has zero width.

        Raises:
            ValueError: a value is outside [0, 1].
        """
        known = ~np.isnan(values)
        if not known.any():
            return NO_INTERVAL
        _check_shares(values[known])
        sums, sizes = self._sums(values, known), self._sums(np.ones_like(values), known)
        shown, mean = sizes > 0, float(np.clip(values[known].mean(), 0.0, 1.0))
        low, high = exact_interval(mean, effective_size(sums[shown], sizes[shown]))
        return Interval(mean, low, high)

    def difference(self, values: NDArray[np.float64], base: NDArray[np.float64]) -> Interval:
        """Mean of values minus a base, both in [0, 1], over queries that have both; the interval never has zero width.

        Raises:
            ValueError: a value is outside [0, 1].
        """
        known = ~(np.isnan(values) | np.isnan(base))
        if not known.any():
            return NO_INTERVAL
        _check_shares(np.concatenate([values[known], base[known]]))
        gained, sizes = self._sums(values - base, known), self._sums(np.ones_like(values), known)
        weights, down, up = self._augmented
        size = sizes[sizes > 0].mean()
        drawn = weights @ sizes + size * (down + up)
        means = (weights @ gained + size * (up - down))[drawn > 0] / drawn[drawn > 0]
        low, high = np.percentile(means, [100 * tail for tail in TAILS])
        return Interval(float((values - base)[known].mean()), float(low), float(high))

    def retention(self, values: NDArray[np.float64], base: NDArray[np.float64]) -> Interval:
        """Sum of values divided by the sum of a base, both in [0, 1], over queries that have both.

        NaN if the base sums to 0; the interval never has zero width.

        Raises:
            ValueError: a value is outside [0, 1].
        """
        known = ~(np.isnan(values) | np.isnan(base))
        above, below = self._sums(values, known), self._sums(base, known)
        if not below.sum() > 0:
            return NO_INTERVAL
        _check_shares(np.concatenate([values[known], base[known]]))
        sizes = self._sums(np.ones_like(values), known)
        weights, down, up = self._augmented
        size = sizes[sizes > 0].mean()
        drawn = weights @ below + size * down
        ratios = (weights @ above + size * up)[drawn > 0] / drawn[drawn > 0]
        low, high = np.percentile(ratios, [100 * tail for tail in TAILS])
        return Interval(float(above.sum() / below.sum()), float(low), float(high))

    def interval(self, values: NDArray[np.float64]) -> Interval:
        """Mean of values, ignoring NaN, with an expanded percentile interval (`expanded_tails`)."""
        known = ~np.isnan(values)
        if not known.any():
            return NO_INTERVAL
        low, high = np.percentile(self._means(values, known), self._tails(known))
        return Interval(float(values[known].mean()), float(low), float(high))

    def lower_bound(self, values: NDArray[np.float64], confidence: float) -> float:
        """One-sided lower confidence bound of the mean: a percentile of the resampled means.

        With few items, resampled means vary too little, so the percentile is expanded to match Student's t (Hesterberg:
        What Teachers Should Know About the Bootstrap, 2015, on expanded percentiles,
        https://doi.org/10.1080/00031305.2015.1089789). NaN for fewer than two items.
        """
        from scipy.stats import norm, t

        known = ~np.isnan(values)
        size = len(np.unique(self._item[known]))
        if size < 2:
            return float("nan")
        below = norm.cdf(-np.sqrt(size / (size - 1)) * t.ppf(confidence, size - 1))
        return float(np.percentile(self._means(values, known), 100.0 * below))

    def ratio(self, values: NDArray[np.float64], base: NDArray[np.float64]) -> Interval:
        """Sum of values divided by the sum of a base, over queries that have both; NaN if the base sums to 0.

        Resamples whose base sums to 0 are ignored.
        """
        known = ~(np.isnan(values) | np.isnan(base))
        above, below = self._sums(values, known), self._sums(base, known)
        if not below.sum() > 0:
            return NO_INTERVAL
        low, high = np.percentile(self._ratios(above, below), self._tails(known))
        return Interval(float(above.sum() / below.sum()), float(low), float(high))

    def _tails(self, known: NDArray[np.bool_]) -> tuple[float, float]:
        return expanded_tails(len(np.unique(self._item[known])))

    def _sums(self, values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Sums of each item `(items,)`."""
        sums = np.bincount(self._item[known], weights=values[known], minlength=self._count)
        return sums.astype(np.float64)  # integers if there is nothing to sum

    def _means(self, values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The mean in each resample that contains any of the known values."""
        return self._ratios(self._sums(values, known), self._sums(np.ones_like(values), known))

    def _ratios(self, above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
        drawn = self._weights @ below
        ratios: NDArray[np.float64] = (self._weights @ above)[drawn > 0] / drawn[drawn > 0]
        return ratios


def _check_shares(values: NDArray[np.float64]) -> None:
    outside = values[(values < -ROUNDING) | (values > 1 + ROUNDING)]
    if len(outside):
        raise ValueError(f"values must be in [0, 1], not {outside[0]}; use `interval` for unbounded values")
