"""Offline evaluation: how well each encoder retrieves, with intervals, beside simple baselines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexer.catalogue.records import Rerank
from indexer.errors import InvalidRequestError
from indexer.measures.metrics import Bootstrap, Interval, PerQuery, in_order, knn_correct, metrics_of, rank
from indexer.measures.relevance import Relevance, SameLabel, make_relevance
from training.data.sources import SourceImage, SourceProblem
from training.errors import MissingExtraError
from training.reference import describe_encoder

if TYPE_CHECKING:
    from indexer.evaluate.images import GalleryVectors, ImageSet, VectorEncoder
    from indexer.swaps.placement import PlacedItems, PlacementTest
    from training.preprocessing import Preprocessing

KS = (1, 5, 10)
CURVE = 50  # ranks of the precision curve in the report
SHOWN = 8  # results kept of each query, for the report's pictures
BASELINES = ("pixels", "pca", "hog")
NEIGHBOURS = 5  # that vote on a query's label
KNN = f"knn@{NEIGHBOURS}"  # only where relevance is by label
HEADLINE = ("precision@1", "precision@10", "recall@10", "map", "map@r", "ndcg@10", "mrr")


@dataclass(frozen=True)
class EncoderResult:
    """One encoder's figures; `per_query` holds `(Q,)` arrays, NaN where a query has nothing to find."""

    name: str
    encoder_id: str
    family: str
    dim: int
    metric: str
    intervals: dict[str, Interval]
    per_category: dict[str, dict[str, float]]
    difference: dict[str, Interval]  # this encoder minus the first one, on the same queries
    per_query: PerQuery
    curve: NDArray[np.float64]  # mean precision at ranks 1..CURVE
    top: NDArray[np.intp]  # (Q, SHOWN) gallery positions
    hits: NDArray[np.bool_]  # (Q, SHOWN) whether those are relevant
    seconds: float
    placement: PlacementTest | None = None  # by scale and place of the queries' items, where it was asked for

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: interval.to_json() for name, interval in self.intervals.items()},
            "per_category": self.per_category,
            "difference_to_first": {name: interval.to_json() for name, interval in self.difference.items()},
            "encoder_id": self.encoder_id,
            "family": self.family,
            "dim": self.dim,
            "metric": self.metric,
            "placement": None if self.placement is None else self.placement.to_json(),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Evaluation:
    """What was measured, on what, and what was left out."""

    relevance: str
    seed: int
    queries: list[SourceImage]
    gallery: list[SourceImage]
    without_relevant: int
    identical: int
    rejected: list[SourceProblem]
    encoders: dict[str, EncoderResult] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what was left out, and why

    @property
    def headline(self) -> tuple[str, ...]:
        """The metrics of tables and plots."""
        return next((headline(result.intervals) for result in self.encoders.values()), HEADLINE)

    def to_json(self) -> dict[str, Any]:
        return {
            "relevance": self.relevance,
            "seed": self.seed,
            "queries": len(self.queries),
            "gallery": len(self.gallery),
            "queries_without_relevant": self.without_relevant,
            "identical_pairs_left_out": self.identical,
            "rejected": [{"where": p.where, "image": p.image, "reason": p.reason} for p in self.rejected],
            "notes": self.notes,
            "encoders": {name: result.to_json() for name, result in self.encoders.items()},
        }

    def to_text(self) -> str:
        """A table of the headline metrics with their intervals."""
        width = max((len(name) for name in self.encoders), default=0)
        lines = [
            f"{len(self.queries)} queries, gallery of {len(self.gallery)}, relevance {self.relevance}; "
            f"{self.without_relevant} queries without anything relevant, {self.identical} identical pairs left out, "
            f"{len(self.rejected)} files rejected",
            " ".join(["encoder".ljust(width), *(f"{name:>20s}" for name in self.headline)]),
        ]
        for name, result in self.encoders.items():
            row = (result.intervals[metric].to_text() for metric in self.headline)
            lines.append(" ".join([name.ljust(width), *(f"{text:>20s}" for text in row)]))
        return "\n".join([*lines, *self._placement_lines()])

    def _placement_lines(self) -> list[str]:
        from indexer.evaluate.placement_tables import placement_lines

        return placement_lines({name: result.placement for name, result in self.encoders.items()})


def headline(known: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in (*HEADLINE, KNN) if name in known)


def evaluate_retrieval(
    gallery: Sequence[SourceImage],
    queries: Sequence[SourceImage],
    relevance: str,
    encoders: Sequence[str],
    *,
    baselines: bool = True,
    place: bool = False,
    reranks: Sequence[Rerank] = ("none",),
    ks: Sequence[int] = KS,
    replicates: int = 1000,
    seed: int = 0,
    started: Callable[[int], None] = lambda total: None,
    advance: Callable[[int], None] = lambda count: None,
    processes: int | None = None,
) -> Evaluation:
    """Rank the whole gallery for every query by each encoder, exactly, and measure.

    A gallery image with the query's own bytes is taken out of its ranking; queries with nothing relevant left are
    counted and take no part in the means. Equal scores are ordered by a seeded shuffle of the gallery.

    Args:
        relevance: `category`, `item_id`, `attribute:NAME` or the path of a qrels file.
        encoders: references; the first is what the others are compared with.
        place: search for the queries' items by scale and place as well; see `indexer.swaps.placement`.
        reranks: second stages of a search, each measured with every encoder.
        ks: cut-offs of precision, recall, hit and nDCG.
        replicates, seed: of the bootstrap over query items.

    Raises:
        InvalidRequestError: nothing to search or to search for, or an unknown relevance.
        SourceError, EncoderError: a qrels file or an encoder that cannot be used.
    """
    for name, images in (("gallery", gallery), ("queries", queries)):
        if not images:
            raise InvalidRequestError(name, f"the {name} hold no image; give a SOURCE with at least one")
    make_relevance(relevance, queries, gallery)  # before minutes of work, not after
    loaded = _load(encoders, baselines)
    sets = _Sets(gallery, queries, advance, processes)
    started((len(gallery) + len(queries)) * len({described.preprocessing for _, described in loaded}))
    first = sets.of(loaded[0][1].preprocessing)
    judge = make_relevance(relevance, first.queries.images, first.gallery.images)
    same = _identical(first.queries, first.gallery)
    bootstrap = Bootstrap([image.item_id for image in first.queries.images], replicates=replicates, seed=seed)
    order = np.random.default_rng(seed).permutation(len(first.gallery.images))
    evaluation = Evaluation(
        relevance=relevance,
        seed=seed,
        queries=first.queries.images,
        gallery=first.gallery.images,
        without_relevant=_count_without_relevant(judge, same, len(first.queries.images)),
        identical=sum(len(places) for places in same.values()),
        rejected=[*first.gallery.rejected, *first.queries.rejected],
    )
    placed = _place(first, judge, same, loaded[0][1].preprocessing, seed, processes) if place else None
    if placed is not None and not len(placed):
        evaluation.notes.append(
            "no query with anything to find can be cut out of its photo: no figures by scale and place"
        )
    for name, described in loaded:
        began = perf_counter()
        pair = sets.of(described.preprocessing)
        if described.ref is None and len(pair.gallery.images) < 2:
            evaluation.notes.append(f"{name} is left out: it is fitted on the gallery, which needs 2 images and has 1")
            continue
        try:
            encoder = described.load(pair.gallery)
        except MissingExtraError as exc:
            if name in encoders:
                raise
            evaluation.notes.append(f"baseline {name} is left out: {exc}")
            continue
        for rerank in dict.fromkeys(reranks):
            measured = _measure(encoder, pair, judge, same, order, ks, rerank)
            base = next(iter(evaluation.encoders.values()), None)
            title = name if rerank == "none" else f"{name} + {rerank}"
            result = _result(title, encoder, measured, bootstrap, pair, base, perf_counter() - began)
            if placed is not None and rerank == "none":
                from indexer.evaluate.placed import search_queries

                placement = search_queries(
                    placed, encoder, measured.gallery,
                    lambda row: _gains(judge, same, slice(row, row + 1)), same, order,
                    base=None if base is None else base.placement, replicates=replicates, seed=seed,
                )  # fmt: skip
                result = replace(result, placement=placement)
            evaluation.encoders[title] = result
            began = perf_counter()
    return evaluation


def _place(
    pair: _Pair,
    judge: Relevance,
    same: dict[int, list[int]],
    preprocessing: Preprocessing,
    seed: int,
    processes: int | None,
) -> PlacedItems:
    from indexer.evaluate.placed import place_queries

    images = pair.queries.images
    rows = [row for row in range(len(images)) if _gains(judge, same, slice(row, row + 1)).any()]
    return place_queries(images, rows, preprocessing, seed, processes=processes)


@dataclass(frozen=True)
class _Candidate:
    """An encoder to be measured: loaded from its directory, or PCA, which is fitted on the gallery."""

    preprocessing: Preprocessing
    ref: str | None

    def load(self, gallery: ImageSet) -> VectorEncoder:
        from indexer.evaluate.images import EmbedderEncoder, fit_pca

        return fit_pca(gallery.pixels, self.preprocessing) if self.ref is None else EmbedderEncoder(self.ref)


def _load(refs: Sequence[str], baselines: bool) -> list[tuple[str, _Candidate]]:
    from training.preprocessing import Preprocessing

    found = {ref: _Candidate(describe_encoder(ref).preprocessing, ref) for ref in refs}
    if baselines:
        for name in BASELINES:
            if name == "pca":
                found.setdefault(name, _Candidate(Preprocessing(), None))
            else:
                found.setdefault(name, _Candidate(describe_encoder(name).preprocessing, name))
    return list(found.items())


@dataclass(frozen=True)
class _Pair:
    gallery: ImageSet
    queries: ImageSet


class _Sets:
    """The pixels of gallery and queries, read once for each preprocessing."""

    def __init__(
        self,
        gallery: Sequence[SourceImage],
        queries: Sequence[SourceImage],
        advance: Callable[[int], None],
        processes: int | None,
    ) -> None:
        self._sources = (gallery, queries)
        self._advance = advance
        self._processes = processes
        self._pairs: dict[Preprocessing, _Pair] = {}

    def of(self, preprocessing: Preprocessing) -> _Pair:
        from indexer.evaluate.images import read_image_set

        if preprocessing not in self._pairs:
            read = [
                read_image_set(images, preprocessing, self._advance, processes=self._processes)
                for images in self._sources
            ]
            for name, images in zip(("gallery", "queries"), read, strict=True):
                if not images.images:
                    reason = images.rejected[0]
                    raise InvalidRequestError(
                        name, f"none of the {name} can be read; the first, {reason.where}: {reason.reason}"
                    )
            self._pairs[preprocessing] = _Pair(*read)
        return self._pairs[preprocessing]


@dataclass(frozen=True)
class _Measured:
    gallery: GalleryVectors
    per_query: PerQuery
    curve: NDArray[np.float64]
    top: NDArray[np.intp]
    hits: NDArray[np.bool_]


def _identical(queries: ImageSet, gallery: ImageSet) -> dict[int, list[int]]:
    """For each query the gallery positions that hold the very same file."""
    places: dict[str, list[int]] = {}
    for place, content in enumerate(gallery.sha256):
        places.setdefault(content, []).append(place)
    return {row: places[content] for row, content in enumerate(queries.sha256) if content in places}


def _gains(judge: Relevance, same: dict[int, list[int]], block: slice) -> NDArray[np.float32]:
    gains = judge.gains(block)
    for row in range(block.start, block.stop):
        gains[row - block.start, same.get(row, [])] = 0.0
    return gains


def _count_without_relevant(judge: Relevance, same: dict[int, list[int]], count: int) -> int:
    return sum(not _gains(judge, same, slice(row, row + 1)).any() for row in range(count))


def _measure(
    encoder: VectorEncoder,
    pair: _Pair,
    judge: Relevance,
    same: dict[int, list[int]],
    order: NDArray[np.intp],
    ks: Sequence[int],
    rerank: Rerank,
) -> _Measured:
    from indexer.evaluate.images import GalleryVectors, embed_pixels
    from indexer.evaluate.reranked import reranked

    gallery = GalleryVectors(encoder, pair.gallery.pixels)
    queries = embed_pixels(encoder, pair.queries.pixels)
    blocks: list[tuple[PerQuery, NDArray[np.float64], NDArray[np.intp], NDArray[np.bool_]]] = []
    for block, scores in reranked(gallery, queries, same, encoder.metric, rerank):
        gains = _gains(judge, same, block)
        for row in range(block.start, block.stop):
            scores[row - block.start, same.get(row, [])] = -np.inf
        ranking = rank(scores, order)
        ranked = in_order(gains, ranking)
        figures = metrics_of(ranked, ks)
        if isinstance(judge, SameLabel) and judge.is_class:
            nearest = ranking[:, :NEIGHBOURS]
            correct = knn_correct(np.take_along_axis(scores, nearest, axis=1), *judge.labels(block, nearest))
            figures[KNN] = np.where(np.isnan(figures["map"]), np.nan, correct)
        curve = np.cumsum(ranked[:, :CURVE] > 0, axis=1) / np.arange(1, min(CURVE, ranked.shape[1]) + 1)
        blocks.append((figures, curve, ranking[:, :SHOWN].copy(), ranked[:, :SHOWN] > 0))  # a view would keep all of it
    per_query = {name: np.concatenate([values[name] for values, *_ in blocks]) for name in blocks[0][0]}
    known = ~np.isnan(per_query["map"])
    curves = np.concatenate([curve for _, curve, _, _ in blocks])
    return _Measured(
        gallery,
        per_query,
        curves[known].mean(axis=0) if known.any() else np.full(curves.shape[1], np.nan),
        np.concatenate([top for _, _, top, _ in blocks]),
        np.concatenate([hits for *_, hits in blocks]),
    )


def _result(
    name: str,
    encoder: VectorEncoder,
    measured: _Measured,
    bootstrap: Bootstrap,
    pair: _Pair,
    base: EncoderResult | None,
    seconds: float,
) -> EncoderResult:
    difference = {}
    if base is not None:
        for metric in headline(measured.per_query):
            difference[metric] = bootstrap.difference(measured.per_query[metric], base.per_query[metric])
    return EncoderResult(
        name=name,
        encoder_id=encoder.encoder_id,
        family=encoder.family,
        dim=encoder.dim,
        metric=encoder.metric,
        intervals={metric: bootstrap.share(values) for metric, values in measured.per_query.items()},
        per_category=_by_category(measured.per_query, pair.queries.images),
        difference=difference,
        per_query=measured.per_query,
        curve=measured.curve,
        top=measured.top,
        hits=measured.hits,
        seconds=seconds,
    )


def _by_category(per_query: PerQuery, queries: Sequence[SourceImage]) -> dict[str, dict[str, float]]:
    """Mean figures of the queries of each category that has any with something to find."""
    labels = np.array([query.category or "" for query in queries])
    known = ~np.isnan(per_query["map"])
    table: dict[str, dict[str, float]] = {}
    for label in sorted(set(labels[known].tolist()) - {""}):
        members = known & (labels == label)
        figures = {metric: float(per_query[metric][members].mean()) for metric in headline(per_query)}
        table[label] = {"queries": float(members.sum()), **figures}
    return table
