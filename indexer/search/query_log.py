"""A bounded sample of recent image searches, for `nitamono drift`: their vectors and nothing else."""

from __future__ import annotations

import logging
import threading
from collections import deque
from datetime import UTC, datetime
from typing import NamedTuple

import sqlalchemy as sa

from indexer.catalogue.catalogue import Catalogue
from indexer.errors import IndexerError
from indexer.vectors import Floats

EVERY = 5.0  # seconds between writes
logger = logging.getLogger("nitamono")


class _Query(NamedTuple):
    collection_id: int
    encoder_id: str
    at: datetime
    vector: bytes


class QueryLog:
    """Keeps query vectors in memory and stores them from one thread in the background; close it.

    A search only appends to memory. Where the database fails, what was to be stored is dropped and the log of the
    program says so.

    Args:
        keep: how many are kept of each collection and encoder, and how many wait in memory at most; at least 1.
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
        """Note the vectors `(n, dim)` of a search."""
        at = datetime.now(UTC)
        self._waiting.extend(_Query(collection_id, encoder_id, at, v.astype("<f4").tobytes()) for v in vectors)

    def close(self) -> None:
        """Store what waits, and end the thread."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self._every):
            self._store()
        self._store()

    def _store(self) -> None:
        waiting: dict[tuple[int, str], list[tuple[datetime, bytes]]] = {}
        for _ in range(len(self._waiting)):
            query = self._waiting.popleft()  # only this thread takes any out
            waiting.setdefault((query.collection_id, query.encoder_id), []).append((query.at, query.vector))
        for (collection_id, encoder_id), queries in waiting.items():
            try:
                self._catalogue.add_recent_queries(collection_id, encoder_id, queries, keep=self._keep)
            except (IndexerError, sa.exc.SQLAlchemyError) as exc:
                logger.warning("%d recent queries were not stored: %s", len(queries), exc)
