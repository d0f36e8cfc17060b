"""How every approximate index is searched, whichever engine it is of.

An index is searched with the effort that reached the recall target on held-out queries, and with more for deep pages.
Under a filter, the effort is raised by the share of vectors that pass it. What passes may be far from the query, where
more effort is needed, so it is doubled until twice the effort finds the same; once that would cost more than comparing
every allowed vector, those are compared. A filtered search never returns fewer hits than exist.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from indexer.vectors import Allowed, Floats, Neighbours
from indexer.vectors.exact import RECALL_AT

MORE = 2  # times the effort, until a filtered search finds nothing better
REPEATED = 3  # cost of a filtered search, in that of its first attempt, if the second finds nothing better


class ApproximateIndex(ABC):
    """A `VectorIndex` that proposes neighbours with an effort; an engine says how, and what that costs."""

    count: int
    is_exact: bool

    def search(self, queries: Floats, k: int, allowed: Allowed | None = None) -> Neighbours:
        queries, k = np.ascontiguousarray(queries, dtype=np.float32), min(k, self.count)
        if self.is_exact or not k:
            return self.search_exactly(queries, k, allowed)
        return self._unfiltered(queries, k) if allowed is None else self._filtered(queries, k, allowed)

    @abstractmethod
    def search_exactly(self, queries: Floats, k: int, allowed: Allowed | None = None) -> Neighbours: ...

    @property
    @abstractmethod
    def candidates(self) -> int:
        """Neighbours that a search with the tuned effort proposes."""

    @abstractmethod
    def cost(self, effort: float) -> float:
        """Nanoseconds, about, of a search for one query with a multiple of the tuned effort."""

    @abstractmethod
    def cost_of_all(self, allowed: Allowed | None) -> float:
        """Nanoseconds, about, of comparing one query with every allowed vector."""

    @abstractmethod
    def proposed(self, queries: Floats, candidates: int, effort: float, allowed: Allowed | None) -> Neighbours:
        """The best `candidates` that a search with a multiple of the tuned effort finds, -1 where it finds fewer."""

    def proposals(self, k: int, depth: int) -> int:
        """Number of proposals among which the `k` best of an unfiltered search are."""
        return min(self.candidates * depth, self.count)

    def _unfiltered(self, queries: Floats, k: int) -> Neighbours:
        depth = self._depth(k)
        while self.cost(depth) < self.cost_of_all(None):
            found = self.proposed(queries, self.proposals(k, depth), depth, None)
            if (found.positions[:, k - 1] >= 0).all():
                return _first(found, k)
            depth *= MORE
        return self.search_exactly(queries, k, None)

    def _filtered(self, queries: Floats, k: int, allowed: Allowed) -> Neighbours:
        depth, before = self._depth(k) / MORE, None
        while REPEATED * self.cost(effort := depth * self.count / max(allowed.count, 1)) < self.cost_of_all(allowed):
            candidates = min(max(int(self.candidates * depth), RECALL_AT), allowed.count)
            found = self.proposed(queries, candidates, effort, allowed)
            if (found.positions >= 0).all():
                if before is not None and _is_as_good(before, found):
                    return _first(found, k)
                before = found
            depth *= MORE
        return self.search_exactly(queries, k, allowed)

    def _depth(self, k: int) -> int:
        """Times the tuned effort for `k` neighbours.

        It is the same for all pages of a depth: they are cut from the same candidates, so that they do not overlap.
        """
        depth = 1
        while self.candidates * depth < 2 * k:
            depth *= MORE
        return depth


def _is_as_good(before: Neighbours, found: Neighbours) -> bool:
    """Whether the best neighbours, as many as recall is measured with, were as good before."""
    return bool(np.allclose(before.scores[:, :RECALL_AT], found.scores[:, :RECALL_AT], atol=1e-6))


def _first(found: Neighbours, k: int) -> Neighbours:
    return Neighbours(found.scores[:, :k], found.positions[:, :k])
