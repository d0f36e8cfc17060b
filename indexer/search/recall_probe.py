"""How much an approximate index finds of what real queries look for.

Now and then, a search is repeated in the background: with the index, and by comparing every vector.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from indexer.vectors import Allowed, Floats, VectorIndex
from indexer.vectors.exact import RECALL_AT
from training.errors import NitamonoError

logger = logging.getLogger("nitamono")

EVERY = 60.0  # seconds between two probes of a collection, of searches with a filter and without each
TIE = 1e-4  # score within which neighbours are as good

OnRecall = Callable[[str, bool, float], object]  # collection, whether filtered, recall@10


class RecallProbe:
    """Measures recall@10 of some searches; `on_recall` gets each figure, in a thread of its own."""

    def __init__(self, on_recall: OnRecall, *, every: float = EVERY) -> None:
        self._on_recall = on_recall
        self._every = every
        self._last: dict[tuple[str, bool], float] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recall-probe")

    def offer(
        self, collection: str, index: VectorIndex, query: Floats, allowed: Allowed | None, *, filtered: bool
    ) -> None:
        """Probe a query `(1, dim)`, unless one of its kind was probed lately, or the index is exact."""
        if not index.parameters or (allowed is not None and not allowed.count):
            return
        key, now = (collection, filtered), time.monotonic()
        with self._lock:
            if now - self._last.get(key, -np.inf) < self._every:
                return
            self._last[key] = now
            if not self._closed:
                self._thread.submit(self._measure, key, index, query, allowed)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _measure(self, key: tuple[str, bool], index: VectorIndex, query: Floats, allowed: Allowed | None) -> None:
        try:
            found = index.search(query, RECALL_AT, allowed)
            exact = index.search_exactly(query, RECALL_AT, allowed)
            real = exact.positions[0] >= 0
            worst = exact.scores[0][real][-1]
            recall = np.count_nonzero(found.scores[0] >= worst - TIE) / np.count_nonzero(real)
            self._on_recall(*key, min(1.0, float(recall)))
        except NitamonoError as exc:
            logger.warning("could not measure the recall of a search in %s: %s", key[0], exc)
        except Exception:
            logger.exception("could not measure the recall of a search in %s", key[0])
