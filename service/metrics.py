"""Prometheus metrics: requests by route and status, duration of stages, active generations."""

from __future__ import annotations

import os
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from service.tracing import Span, no_span

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """The metrics of an app; those of several worker processes are summed in `PROMETHEUS_MULTIPROC_DIR`.

    Args:
        span: begins a trace's span for a stage.
    """

    def __init__(self, span: Span = no_span) -> None:
        self.span = span
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("nitamono_http_requests_total", "HTTP requests", labels, registry=self.registry)
        self._seconds = Histogram(
            "nitamono_http_request_seconds",
            "Duration of HTTP requests",
            labels,
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "nitamono_stage_seconds", "Duration of a stage", ("stage",), buckets=BUCKETS, registry=self.registry
        )
        self._generation = Gauge(
            "nitamono_generation",
            "Number of the active generation",
            ("collection",),
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self._damaged = Gauge(
            "nitamono_generation_damaged",
            "1 if the files of the active generation or of its encoder are damaged",
            ("collection",),
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self._running = Gauge(
            "nitamono_requests_running",
            "Requests in progress",
            ("lane",),
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._waiting = Gauge(
            "nitamono_requests_waiting",
            "Requests that wait for a place",
            ("lane",),
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._recall = Summary(
            "nitamono_search_recall_at_10",
            "recall@10 of some searches in approximate indexes against exact search",
            ("collection", "filtered"),
            registry=self.registry,
        )
        self._refused = Counter(
            "nitamono_requests_refused_total", "Requests refused for overload", ("lane",), registry=self.registry
        )

    def set_lane(self, lane: str, running: int, waiting: int) -> None:
        """Record how many requests of a kind this process runs and has waiting."""
        self._running.labels(lane).set(running)
        self._waiting.labels(lane).set(waiting)

    def count_refusal(self, lane: str) -> None:
        self._refused.labels(lane).inc()

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        labels = (method, route, str(status))
        self._requests.labels(*labels).inc()
        self._seconds.labels(*labels).observe(seconds)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Record a stage: `encode` is encoding for a search or a stored item, `search` is a whole search, and
        `redraw` draws a drawing again."""
        self._stages.labels(stage).observe(seconds)

    def observe_recall(self, collection: str, filtered: bool, recall: float) -> None:
        """Record the recall@10 of a search that was probed."""
        self._recall.labels(collection, str(filtered).lower()).observe(recall)

    def set_generations(self, generations: Iterable[tuple[str, int]]) -> None:
        for collection, number in generations:
            self._generation.labels(collection).set(number)

    def set_damaged(self, collections: Iterable[tuple[str, bool]]) -> None:
        for collection, is_damaged in collections:
            self._damaged.labels(collection).set(is_damaged)

    def render(self) -> bytes:
        """The metrics in Prometheus text format."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        merged = CollectorRegistry()
        MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
        return generate_latest(merged)
