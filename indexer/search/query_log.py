"""A bounded log of recent query vectors of image searches, for `nitamono drift`; nothing else is stored."""

from __future__ import annotations

import logging
import threading
from collections import deque
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.catalogue.catalogue import Catalogue
from indexer.catalogue.records import RecentQuery
from indexer.errors import IndexerError
from indexer.vectors import Floats

EVERY = 5.0  # seconds between writes
logger = logging.getLogger("nitamono")


class _Query(NamedTuple):
    collection_id: int
    encoder_id: str
    at: datetime
    vector: NDArray[np.float32]


class QueryLog:
    """Buffers query vectors in memory and stores them from a background thread; close it.

    A search only appends to memory. If the database fails, the buffered vectors are dropped and a warning is logged.

    Args:
        keep: vectors to keep for each collection and encoder, and in the buffer; at least 1.
        every: seconds between writes.
    """

    def __init__(self, catalogue: Catalogue, keep: int, *, every: float = EVERY) -> None:
        self._catalogue = catalogue
        self._keep = keep
        self._every = every
        self._waiting: deque[_Query] = deque(maxlen=keep)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="query-log", daemon=True)
        self._thread.start()

    def add(self, collection_id: int, encoder_id: str, vectors: Floats) -> None:
        """Log the query vectors `(n, dim)` of a search."""
        at = datetime.now(UTC)
        self._waiting.extend(_Query(collection_id, encoder_id, at, vector.copy()) for vector in vectors)

    def close(self) -> None:
        """Store the buffered vectors and stop the thread."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self._every):
            self._store()
        self._store()

    def _store(self) -> None:
        waiting: dict[tuple[int, str], list[RecentQuery]] = {}
        for _ in range(len(self._waiting)):
            query = self._waiting.popleft()  # only this thread removes any
            waiting.setdefault((query.collection_id, query.encoder_id), []).append(RecentQuery(query.at, query.vector))
        for (collection_id, encoder_id), queries in waiting.items():
            try:
                self._catalogue.queries.add(collection_id, encoder_id, queries, keep=self._keep)
            except IndexerError as exc:
                logger.warning("%d recent queries were not stored: %s", len(queries), exc)
