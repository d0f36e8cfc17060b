"""The result of an evaluation: the figures of each encoder, as JSON and as text."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexer.measures.metrics import Interval, PerQuery
from training.data.sources import SourceImage, SourceProblem

if TYPE_CHECKING:
    from indexer.swaps.placement import PlacementTest

NEIGHBOURS = 5  # that vote on the label of a query
KNN = f"knn@{NEIGHBOURS}"  # only if relevance is by class label
HEADLINE = ("precision@1", "precision@10", "recall@10", "map", "map@r", "ndcg@10", "mrr")


@dataclass(frozen=True)
class EncoderResult:
    """The figures of one encoder; `per_query` holds `(Q,)` arrays, with NaN for queries without relevant images."""

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
    placement: PlacementTest | None = None  # None if it was not requested

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
    """The results of all encoders, and the queries and gallery they were measured on."""

    relevance: str
    seed: int
    queries: list[SourceImage]
    gallery: list[SourceImage]
    without_relevant: int
    identical: int
    rejected: list[SourceProblem]
    encoders: dict[str, EncoderResult] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what was skipped, and why

    @property
    def headline(self) -> tuple[str, ...]:
        """The metrics that tables and plots show."""
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
            f"{self.without_relevant} queries without relevant images, {self.identical} identical pairs excluded, "
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
