"""Timing of stages, for metrics and responses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from indexer.catalogue.home import Home
from indexer.decoding import MemoryBudget
from indexer.search.query_log import QueryLog
from indexer.search.recall_probe import RecallProbe
from indexer.search.searcher import Searcher
from service.metrics import Metrics
from training.data.decode import ImageLimits
from training.embedder import Embedder, Pixels, Regions, Vectors
from training.reference import EncoderDescription


@dataclass
class Stopwatch:
    seconds: float = 0.0


@contextmanager
def stopwatch(metrics: Metrics, stage: str) -> Iterator[Stopwatch]:
    """Time and trace a stage; afterwards, the stopwatch holds the seconds."""
    watch, begin = Stopwatch(), time.perf_counter()
    try:
        with metrics.span(stage):
            yield watch
    finally:
        watch.seconds = time.perf_counter() - begin
        metrics.observe_stage(stage, watch.seconds)


@dataclass(frozen=True)
class TimedEmbedder:
    """An embedder that times encoding as the stage `encode`."""

    inner: Embedder
    metrics: Metrics

    @property
    def described(self) -> EncoderDescription:
        return self.inner.described

    def embed(self, pixels: Pixels) -> Vectors:
        with stopwatch(self.metrics, "encode"):
            return self.inner.embed(pixels)

    def embed_with_regions(self, pixels: Pixels, *, framed: bool) -> tuple[Vectors, Regions | None]:
        with stopwatch(self.metrics, "encode"):
            return self.inner.embed_with_regions(pixels, framed=framed)


class TimedSearcher(Searcher):
    """A searcher that times encoding and measures recall."""

    def __init__(
        self,
        home: Home,
        metrics: Metrics,
        *,
        device: str,
        threads: int,
        limits: ImageLimits,
        memory: MemoryBudget | None = None,
        query_log: QueryLog | None = None,
    ) -> None:
        super().__init__(
            home, device=device, threads=threads, limits=limits, memory=memory, query_log=query_log,
            recall_probe=RecallProbe(metrics.observe_recall),
        )  # fmt: skip
        self._metrics = metrics

    def embedder(self, encoder_id: str) -> Embedder:
        return TimedEmbedder(super().embedder(encoder_id), self._metrics)
