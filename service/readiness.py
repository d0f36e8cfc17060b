"""Readiness of collections: whether the active generation and its encoder are loaded."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from indexer.catalogue.home import Home
from indexer.errors import CorruptError
from indexer.search.searcher import Searcher
from service.errors import NotReadyError
from training.errors import NitamonoError

logger = logging.getLogger("nitamono")


@dataclass(frozen=True)
class CollectionReadiness:
    """Readiness of a collection; `reason` explains why it is not ready."""

    collection: str
    ready: bool
    generation: int | None
    reason: str | None = None


class Readiness:
    """Loads the active generations at start, and on each check those that are new."""

    def __init__(self, home: Home, searcher: Searcher) -> None:
        self._home = home
        self._searcher = searcher
        self._lock = threading.Lock()
        self._known: list[CollectionReadiness] = []

    def start(self) -> threading.Thread:
        """Load in the background, so that a server that is still loading answers liveness probes."""
        thread = threading.Thread(target=self.check, name="warm", daemon=True)
        thread.start()
        return thread

    def check(self) -> list[CollectionReadiness]:
        """Load what is missing and report readiness; while another thread is loading, report the last known state."""
        if not self._lock.acquire(blocking=False):
            return self._known
        try:
            self._known = [
                self._load(record.name, record.generation) for record in self._home.catalogue.collections.all()
            ]
            return self._known
        finally:
            self._lock.release()

    def require(self) -> list[CollectionReadiness]:
        """Like `check`, but raise `NotReadyError` if no collection can be searched."""
        known = self.check()
        if any(entry.ready for entry in known):
            return known
        reasons = "; ".join(f"{entry.collection}: {entry.reason}" for entry in known)
        raise NotReadyError(reasons or "there is no collection yet; run `nitamono index SOURCE`")

    def _load(self, collection: str, generation: int | None) -> CollectionReadiness:
        if generation is None:
            return CollectionReadiness(collection, False, None, "no generation is active; run `nitamono index SOURCE`")
        try:
            self._searcher.warm(collection)
        except NitamonoError as exc:
            logger.error("collection %s cannot be loaded: %s", collection, exc)
            if isinstance(exc, CorruptError):
                reason = "its index is damaged; run `nitamono index SOURCE` to build it again"
                return CollectionReadiness(collection, False, generation, reason)
            return CollectionReadiness(collection, False, generation, "its index cannot be loaded; see the log")
        return CollectionReadiness(collection, True, generation)
