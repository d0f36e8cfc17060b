"""Background robustness: how much search vectors depend on the background; all measures have intervals over items.

Notation: items i, backgrounds b, photos x(i, b) = mask_i item_i + (1 - mask_i) background_b, vectors z(i, b). A swap
test searches a query x(i, b') among gallery photos x(j, b_j), with b' different from b_i. Photos of the same item are
relevant, and no query is in the gallery.

- swap-recall@k: share of queries with a photo of their item among the first k results; the recall@k of metric learning
  (`hit@k` in `indexer.measures.metrics`).
- swap-MAP@R: MAP@R (Musgrave et al. 2020, section 3.2, https://arxiv.org/abs/2003.08505) of the swapped queries, as
  Kobs, Hotho: On Background Bias in Deep Metric Learning, ICMV 2022, https://arxiv.org/abs/2210.01615, replace
  backgrounds at test time.
- retention: swapped metric / clean metric, where clean queries show the same items on their own backgrounds.
- background gap: 1-nearest-neighbour accuracy of the category on backgrounds from the item's own category, minus the
  accuracy on backgrounds from any category. The two photos that donate these backgrounds are excluded from both
  searches (Xiao et al.: Noise or Signal: The Role of Image Backgrounds in Object Recognition, 2021, section 3,
  https://arxiv.org/abs/2006.09994, which uses a classifier).
- item share, background share: variance components, see `indexer.measures.variance`.
- lure rate: share of the first k neighbours that have the query's background but show another item, divided by the
  share of such photos in the gallery; 1 is chance. The query's own item is excluded.
- displacement: |z(i, b') - z(i, b)| divided by the distance from z(i, b') to the nearest photo of another product on
  any background, for each query x(i, b') and each other photo x(i, b) of its item; mean over both.
- overtaken: share of these ratios that are 1 or more. The other product then ranks before the item's own photo in a
  gallery with both; the mean ratio alone does not show how often this happens, whether it is above or below 1.
- attention score: (share of an attribution inside the mask - area of the mask) / (1 - area); 0 is uniform attribution.

Intervals are 95 % intervals over items: all queries of an item are resampled together, and retention is a ratio of
means over the same items. Intervals of figures in [0, 1], of their differences and of retention stay valid at the ends
of the range (`indexer.measures.intervals`); the others are bootstrap percentiles.

Differs from the papers: every swap metric is a mean over items of the mean over their queries, so items with more
backgrounds do not get more weight; the background gap uses nearest neighbours instead of a trained classifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.measures.metrics import Bootstrap, Interval, PerQuery, in_order, metrics_of, rank, score_blocks
from indexer.measures.relevance import SameLabel
from indexer.vectors import Floats
from training.reference import Metric

KS = (1, 5, 10)
MAP_AT_R = "map@r"
BLOCK_NUMBERS = 4_000_000  # distances held at a time: 32 MB
TIED = 1e-7  # relative difference below which distances count as equal
ROUNDING = 1e-12  # squared distances below this share of the mean squared norm count as 0


@dataclass(frozen=True)
class LabelledVectors:
    """Search vectors `(N, dim)` of photos, and the item (or product) that each photo shows."""

    vectors: Floats
    items: Sequence[str]

    def __post_init__(self) -> None:
        if len(self.vectors) != len(self.items):
            raise ValueError(
                f"{len(self.vectors)} vectors are given for {len(self.items)} items; give one vector for each"
            )


class SwapFigure(NamedTuple):
    """A metric of clean queries and of swapped queries, and their ratio."""

    clean: Interval
    swapped: Interval
    retention: Interval

    def to_json(self) -> dict[str, Any]:
        return {name: interval.to_json() for name, interval in self._asdict().items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SwapFigure:
        return cls(*(Interval.from_json(document[name]) for name in cls._fields))


class SwapTest(NamedTuple):
    """Figures by metric, and the values they are means of: by metric, `(items,)`, sorted by the items' names."""

    figures: dict[str, SwapFigure]
    items: list[str]
    clean: PerQuery
    swapped: PerQuery


def swap_test(
    gallery: LabelledVectors,
    clean: LabelledVectors,
    swapped: LabelledVectors,
    metric: Metric,
    *,
    ks: Sequence[int] = KS,
    replicates: int = 1000,
    seed: int = 0,
) -> SwapTest:
    """`recall@k` and `map@r` of clean queries and of swapped queries, and the retention.

    Args:
        clean, swapped: queries of the same items, all of which are in the gallery.

    Raises:
        ValueError: the items do not match.
    """
    names, figures = np.unique(np.asarray(clean.items, np.str_)), dict[str, SwapFigure]()
    if set(names.tolist()) != set(swapped.items) or not set(names.tolist()) <= set(gallery.items):
        raise ValueError("clean and swapped queries must show the same items, and all of them must be in the gallery")
    bootstrap = Bootstrap(names.tolist(), replicates=replicates, seed=seed)
    order = np.random.default_rng(seed).permutation(len(gallery.items))
    found = [
        _by_item(query_metrics(gallery, queries, metric, order, ks), queries.items) for queries in (clean, swapped)
    ]
    for name in found[0]:
        before, after = (values[name] for values in found)
        figures[name] = SwapFigure(bootstrap.share(before), bootstrap.share(after), bootstrap.retention(after, before))
    return SwapTest(figures, names.tolist(), *found)


def query_metrics(
    gallery: LabelledVectors, queries: LabelledVectors, metric: Metric, order: NDArray[np.intp], ks: Sequence[int] = KS
) -> PerQuery:
    """`recall@k` and `map@r` of each query `(Q,)`; ties follow the given order of the gallery."""
    relevance = SameLabel(list(queries.items), list(gallery.items))
    blocks = []
    for block, scores in score_blocks(queries.vectors, gallery.vectors, metric):
        values = metrics_of(in_order(relevance.gains(block), rank(scores, order)), ks)
        blocks.append({**{f"recall@{k}": values[f"hit@{k}"] for k in ks}, MAP_AT_R: values[MAP_AT_R]})
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _by_item(values: PerQuery, items: Sequence[str]) -> PerQuery:
    """The mean over the queries of each item, sorted by the items' names."""
    _, item, counts = np.unique(np.asarray(items, np.str_), return_inverse=True, return_counts=True)
    return {name: np.bincount(item, figures) / counts for name, figures in values.items()}


class BackgroundGap(NamedTuple):
    """Accuracy on backgrounds from the item's own category, on those from any category, and their difference."""

    same: Interval
    random: Interval
    gap: Interval

    def to_json(self) -> dict[str, Any]:
        return {name: interval.to_json() for name, interval in self._asdict().items()}


def background_gap(
    gallery: Floats,
    same: tuple[Floats, NDArray[np.intp]],
    random: tuple[Floats, NDArray[np.intp]],
    categories: Sequence[str],
    metric: Metric,
    *,
    bootstrap: Bootstrap,
) -> BackgroundGap:
    """How much a background from the same category helps to recognise an item's category.

    Args:
        gallery: one vector of each item `(I, dim)`.
        same, random: vectors of the items on backgrounds of other photos `(I, dim)`, and the gallery positions of the
            photos that donate them `(I,)`. Both donors and the item's own photo are excluded from both searches, so
            that both search the same gallery.
        categories: category of each item.
        bootstrap: over the items.
    """
    labels = np.asarray(categories, np.str_)
    left_out = np.stack([np.arange(len(labels)), same[1], random[1]], axis=1)
    usual, other = (_nearest_has_category(gallery, photos, left_out, labels, metric) for photos in (same[0], random[0]))
    return BackgroundGap(bootstrap.share(usual), bootstrap.share(other), bootstrap.difference(usual, other))


def _nearest_has_category(
    gallery: Floats, queries: Floats, left_out: NDArray[np.intp], labels: NDArray[np.str_], metric: Metric
) -> NDArray[np.float64]:
    right = np.empty(len(queries))
    for block, scores in score_blocks(queries, gallery, metric):
        np.put_along_axis(scores, left_out[block], -np.inf, axis=1)
        right[block] = labels[scores.argmax(axis=1)] == labels[block]
    return right


def lure_rate(
    queries: Floats, gallery: Floats, backgrounds: NDArray[np.intp], metric: Metric, *, k: int, bootstrap: Bootstrap
) -> Interval:
    """Share of neighbours with the query's background but another item, relative to chance.

    Args:
        queries: every item on every background `(I, B, dim)`.
        gallery: another photo of each item `(I, dim)`.
        backgrounds: index of the background of each gallery photo `(I,)`.
        k: number of neighbours; reduced to the number of photos of other items on the rarest background. No more of
            them can be lures, and in a small gallery the rate would otherwise be 1 for any ranking.
        bootstrap: over the items.
    """
    items, count, dim = queries.shape
    k = max(1, min(k, items - 1, int(np.bincount(backgrounds, minlength=count).min()) - 1))
    lures, chance = (np.zeros(items * count) for _ in range(2))
    for block, scores in score_blocks(queries.reshape(-1, dim), gallery, metric):
        rows = np.arange(block.start, block.stop)
        own = rows // count
        same = backgrounds[None] == (rows % count)[:, None]  # (rows, I)
        same[rows - block.start, own] = False
        scores[rows - block.start, own] = -np.inf
        first = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        lures[block] = np.take_along_axis(same, first, axis=1).mean(axis=1)
        chance[block] = same.sum(axis=1) / (items - 1)
    per_item = (values.reshape(items, count).mean(axis=1) for values in (lures, chance))
    return bootstrap.ratio(*per_item)


class Displacement(NamedTuple):
    """Displacement of each item by a change of background, and how often it is overtaken, `(I,)` each."""

    ratio: NDArray[np.float64]
    overtaken: NDArray[np.float64]


def displacement(z: NDArray[np.floating], products: Sequence[str] | None = None) -> Displacement:
    """Displacement and overtaken share of each item.

    The ratio is NaN if another product has the same vector as every photo of the item; both are NaN if there is no
    other product.

    Args:
        z: every item on every background `(I, B, dim)`.
        products: the product of each item; by default every item is a product of its own.
    """
    items, count, dim = z.shape
    numbers = np.arange(items) if products is None else np.unique(np.asarray(products, np.str_), return_inverse=True)[1]
    flat = z.reshape(-1, dim).astype(np.float64)
    flat -= flat.mean(axis=0)
    lengths, product = np.square(flat).sum(axis=1), np.repeat(numbers, count)
    nearest = np.empty(len(flat))
    rows = max(1, BLOCK_NUMBERS // len(flat))
    for start in range(0, len(flat), rows):
        block = slice(start, start + rows)
        squares = lengths[block, None] - 2 * (flat[block] @ flat.T) + lengths
        squares[product[block, None] == product] = np.inf
        nearest[block] = np.sqrt(np.maximum(squares.min(axis=1), 0.0))
    nearest[nearest < np.sqrt(ROUNDING * lengths.mean())] = 0.0
    own = flat.reshape(items, count, dim)
    moved = np.stack([np.linalg.norm(own - own[:, b : b + 1], axis=2) for b in range(count)], axis=2)  # (I, B', B)
    other = ~np.eye(count, dtype=bool)
    moved, limit = moved[:, other].reshape(items, count, -1), nearest.reshape(items, count, 1)
    alone = ~np.isfinite(limit[:, :, 0]).any(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(limit > 0, moved / limit, np.nan).reshape(items, -1)
    known = (~np.isnan(ratios)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        ratio = np.where((known > 0) & ~alone, np.nansum(ratios, axis=1) / np.maximum(known, 1), np.nan)
    overtaken = (moved >= limit * (1 - TIED)).reshape(items, -1).mean(axis=1)
    return Displacement(ratio, np.where(alone, np.nan, overtaken))


def attention_score(attribution: NDArray[np.floating], masks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Attention score `(N,)`: 0 if the attribution is uniform, 1 if all of it is inside the item.

    NaN if the attribution is 0 everywhere, or the item fills the photo.

    Args:
        attribution: `(N, H, W)`, non-negative.
        masks: coverage by the item `(N, H, W)` in [0, 1].
    """
    if attribution.shape != masks.shape:
        raise ValueError(f"attributions {attribution.shape} and masks {masks.shape} must have the same shape")
    area = masks.mean(axis=(1, 2), dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = (attribution * masks).sum(axis=(1, 2), dtype=np.float64) / attribution.sum(axis=(1, 2))
        score: NDArray[np.float64] = (inside - area) / (1.0 - area)
    return np.where(np.isfinite(score), score, np.nan)
