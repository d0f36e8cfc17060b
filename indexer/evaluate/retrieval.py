"""Offline evaluation of retrieval: metrics of each encoder with confidence intervals, and simple baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.catalogue.records import Rerank
from indexer.errors import InvalidRequestError
from indexer.evaluate.results import KNN, NEIGHBOURS, EncoderResult, Evaluation, headline
from indexer.measures.metrics import Bootstrap, Gains, PerQuery, in_order, knn_correct, metrics_of, rank
from indexer.measures.relevance import Relevance, SameLabel, make_relevance
from indexer.vectors import Floats
from training.data.sources import SourceImage
from training.errors import MissingExtraError
from training.reference import describe_encoder

if TYPE_CHECKING:
    from indexer.evaluate.images import GalleryVectors, ImageSet, VectorEncoder
    from indexer.swaps.placement import PlacedItems, PlacementTest
    from training.preprocessing import Preprocessing

KS = (1, 5, 10)  # cut-offs of precision, recall, hit and nDCG
CURVE = 50  # ranks of the precision curve
SHOWN = 8  # results kept of each query for the pictures of the report
BASELINES = ("pixels", "pca", "hog")


def evaluate_retrieval(
    gallery: Sequence[SourceImage],
    queries: Sequence[SourceImage],
    relevance: str,
    encoders: Sequence[str],
    *,
    baselines: bool = True,
    place: bool = False,
    reranks: Sequence[Rerank] = ("none",),
    replicates: int = 1000,
    seed: int = 0,
    started: Callable[[int], None] = lambda total: None,
    advance: Callable[[int], None] = lambda count: None,
    processes: int | None = None,
) -> Evaluation:
    """Rank the whole gallery exactly for every query with each encoder, and compute the metrics.

    Files identical to a query are excluded from its ranking. Queries without relevant images are counted, and excluded
    from the means. Ties are ordered by a seeded shuffle of the gallery.

    Args:
        relevance: `category`, `item_id`, `attribute:NAME` or the path of a qrels file.
        encoders: references; the others are compared with the first.
        place: also measure recall by scale and place; see `indexer.swaps.placement`.
        reranks: second stages of a search; each is measured with every encoder.
        replicates, seed: settings of the bootstrap over query items.

    Raises:
        InvalidRequestError: empty gallery or queries, or an unknown relevance.
        SourceError: the qrels file cannot be read.
        EncoderError: an encoder cannot be loaded.
    """
    for name, images in (("gallery", gallery), ("queries", queries)):
        if not images:
            raise InvalidRequestError(name, f"no images in the {name}; give a SOURCE with at least one")
    make_relevance(relevance, queries, gallery)  # reports errors before minutes of work
    loaded = _load(encoders, baselines)
    sets = _Sets(gallery, queries, advance, processes)
    started((len(gallery) + len(queries)) * len({candidate.preprocessing for _, candidate in loaded}))
    first = sets.of(loaded[0][1].preprocessing)
    truth = _Truth.of(relevance, first)
    evaluation = Evaluation(
        relevance=relevance,
        seed=seed,
        queries=first.queries.images,
        gallery=first.gallery.images,
        without_relevant=len(first.queries.images) - len(truth.answerable),
        identical=sum(len(positions) for positions in truth.identical.values()),
        rejected=[*first.gallery.rejected, *first.queries.rejected],
    )
    placed = _place(truth, first, loaded[0][1].preprocessing, seed, processes) if place else None
    if placed is not None and not len(placed):
        evaluation.notes.append("no placement figures: no query with relevant images can be cut out of its photo")
    evaluator = _Evaluator(evaluation, truth, placed, replicates, seed)
    for name, candidate in loaded:
        pair = sets.of(candidate.preprocessing)
        if candidate.ref is None and len(pair.gallery.images) < 2:
            evaluation.notes.append(f"{name} is skipped: it is fitted on the gallery, which needs 2 images and has 1")
            continue
        try:
            evaluator.measure(name, candidate, pair, reranks)
        except MissingExtraError as exc:
            if name in encoders:
                raise
            evaluation.notes.append(f"baseline {name} is skipped: {exc}")
    return evaluation


@dataclass(frozen=True)
class _Truth:
    """The relevance of the gallery; files identical to a query are excluded from its ranking.

    Args:
        identical: for each query with such files, their gallery positions.
    """

    relevance: Relevance
    identical: dict[int, list[int]]
    queries: int

    @classmethod
    def of(cls, relevance: str, pair: _Pair) -> _Truth:
        positions: dict[str, list[int]] = {}
        for position, content in enumerate(pair.gallery.sha256):
            positions.setdefault(content, []).append(position)
        contents = enumerate(pair.queries.sha256)
        return cls(
            make_relevance(relevance, pair.queries.images, pair.gallery.images),
            {row: positions[content] for row, content in contents if content in positions},
            len(pair.queries.images),
        )

    def gains(self, block: slice) -> Gains:
        """Grades `(Q, M)` of the gallery for a block of queries."""
        gains = self.relevance.gains(block)
        for row in range(block.start, block.stop):
            gains[row - block.start, self.identical.get(row, [])] = 0.0
        return gains

    def gains_of(self, row: int) -> Gains:
        return self.gains(slice(row, row + 1))

    @cached_property
    def answerable(self) -> list[int]:
        """Rows of the queries with a relevant image in the gallery."""
        return [row for row in range(self.queries) if self.gains_of(row).any()]


def _place(truth: _Truth, pair: _Pair, preprocessing: Preprocessing, seed: int, processes: int | None) -> PlacedItems:
    from indexer.evaluate.placed import place_queries

    return place_queries(pair.queries.images, truth.answerable, preprocessing, seed, processes=processes)


class _Evaluator:
    """Adds the results of encoders to an evaluation; the first one is the base of all differences."""

    def __init__(
        self, evaluation: Evaluation, truth: _Truth, placed: PlacedItems | None, replicates: int, seed: int
    ) -> None:
        self.evaluation = evaluation
        self.truth = truth
        self.placed = placed
        self.replicates = replicates
        self.seed = seed
        items = [image.item_id for image in evaluation.queries]
        self.bootstrap = Bootstrap(items, replicates=replicates, seed=seed)
        self.order = np.random.default_rng(seed).permutation(len(evaluation.gallery))

    @property
    def base(self) -> EncoderResult | None:
        return next(iter(self.evaluation.encoders.values()), None)

    def measure(self, name: str, candidate: _Candidate, pair: _Pair, reranks: Sequence[Rerank]) -> None:
        began = perf_counter()
        encoder = candidate.load(pair.gallery)
        for rerank in dict.fromkeys(reranks):
            measured = _measure(encoder, pair, self.truth, self.order, rerank)
            title = name if rerank == "none" else f"{name} + {rerank}"
            result = self._result(title, encoder, measured, perf_counter() - began)
            if rerank == "none":
                result = replace(result, placement=self._placement(encoder, measured))
            self.evaluation.encoders[title] = result
            began = perf_counter()

    def _placement(self, encoder: VectorEncoder, measured: _Measured) -> PlacementTest | None:
        from indexer.evaluate.placed import search_queries

        if self.placed is None:
            return None
        return search_queries(
            self.placed, encoder, measured.gallery, self.truth.gains_of, self.truth.identical, self.order,
            base=None if self.base is None else self.base.placement, replicates=self.replicates, seed=self.seed,
        )  # fmt: skip

    def _result(self, name: str, encoder: VectorEncoder, measured: _Measured, seconds: float) -> EncoderResult:
        difference = {}
        if self.base is not None:
            for metric in headline(measured.per_query):
                of_base = self.base.per_query[metric]
                difference[metric] = self.bootstrap.difference(measured.per_query[metric], of_base)
        return EncoderResult(
            name=name,
            encoder_id=encoder.encoder_id,
            family=encoder.family,
            dim=encoder.dim,
            metric=encoder.metric,
            intervals={metric: self.bootstrap.share(values) for metric, values in measured.per_query.items()},
            per_category=_by_category(measured.per_query, self.evaluation.queries),
            difference=difference,
            per_query=measured.per_query,
            curve=measured.curve,
            top=measured.top,
            hits=measured.hits,
            seconds=seconds,
        )


@dataclass(frozen=True)
class _Candidate:
    """An encoder to measure; without a reference, PCA fitted on the gallery."""

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
                        name, f"none of the {name} can be read; the first problem is {reason.where}: {reason.reason}"
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


def _measure(encoder: VectorEncoder, pair: _Pair, truth: _Truth, order: NDArray[np.intp], rerank: Rerank) -> _Measured:
    from indexer.evaluate.images import GalleryVectors, embed_pixels
    from indexer.evaluate.reranked import reranked

    gallery = GalleryVectors(encoder, pair.gallery.pixels)
    queries = embed_pixels(encoder, pair.queries.pixels)
    scored = reranked(gallery, queries, truth.identical, encoder.metric, rerank)
    blocks = [_measure_block(truth, block, scores, order) for block, scores in scored]
    per_query = {name: np.concatenate([each.per_query[name] for each in blocks]) for name in blocks[0].per_query}
    known = ~np.isnan(per_query["map"])
    curves = np.concatenate([each.curves for each in blocks])
    return _Measured(
        gallery,
        per_query,
        curves[known].mean(axis=0) if known.any() else np.full(curves.shape[1], np.nan),
        np.concatenate([each.top for each in blocks]),
        np.concatenate([each.hits for each in blocks]),
    )


class _Block(NamedTuple):
    """The figures of a block of queries; see `EncoderResult`."""

    per_query: PerQuery
    curves: NDArray[np.float64]
    top: NDArray[np.intp]
    hits: NDArray[np.bool_]


def _measure_block(truth: _Truth, block: slice, scores: Floats, order: NDArray[np.intp]) -> _Block:
    gains = truth.gains(block)
    for row in range(block.start, block.stop):
        scores[row - block.start, truth.identical.get(row, [])] = -np.inf
    ranking = rank(scores, order)
    ranked = in_order(gains, ranking)
    figures = metrics_of(ranked, KS)
    relevance = truth.relevance
    if isinstance(relevance, SameLabel) and relevance.is_class:
        nearest = ranking[:, :NEIGHBOURS]
        correct = knn_correct(np.take_along_axis(scores, nearest, axis=1), *relevance.labels(block, nearest))
        figures[KNN] = np.where(np.isnan(figures["map"]), np.nan, correct)
    curves = np.cumsum(ranked[:, :CURVE] > 0, axis=1) / np.arange(1, min(CURVE, ranked.shape[1]) + 1)
    # A copy, because a view would keep the whole ranking in memory.
    return _Block(figures, curves, ranking[:, :SHOWN].copy(), ranked[:, :SHOWN] > 0)


def _by_category(per_query: PerQuery, queries: Sequence[SourceImage]) -> dict[str, dict[str, float]]:
    """Mean figures of the answerable queries of each category."""
    labels = np.array([query.category or "" for query in queries])
    known = ~np.isnan(per_query["map"])
    table: dict[str, dict[str, float]] = {}
    for label in sorted(set(labels[known].tolist()) - {""}):
        members = known & (labels == label)
        figures = {metric: float(per_query[metric][members].mean()) for metric in headline(per_query)}
        table[label] = {"queries": float(members.sum()), **figures}
    return table
