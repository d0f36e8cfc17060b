"""Whether collections can be searched: their active generation and its encoder are loaded."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from indexer.catalogue.home import Home
from indexer.search.searcher import Searcher
from service.errors import NotReadyError
from training.errors import NitamonoError

logger = logging.getLogger("nitamono")


@dataclass(frozen=True)
class CollectionReadiness:
    """One collection; `reason` says why it is not ready."""

    collection: str
    ready: bool
    generation: int | None
    reason: str | None = None


class Readiness:
    """Loads what is to be searched, once at start and again whenever asked, so that a new collection is found too."""

    def __init__(self, home: Home, searcher: Searcher) -> None:
        self._home = home
        self._searcher = searcher
        self._lock = threading.Lock()
        self._known: list[CollectionReadiness] = []

    def start(self) -> threading.Thread:
        """Load in the background: a server that is still loading should answer that it lives."""
        thread = threading.Thread(target=self.check, name="warm", daemon=True)
        thread.start()
        return thread

    def check(self) -> list[CollectionReadiness]:
        """Load what is not loaded yet, and say what is ready; while another thread loads, what is known so far."""
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
        """As `check`; raises `NotReadyError` while no collection can be searched."""
        known = self.check()
        if any(entry.ready for entry in known):
            return known
        reasons = "; ".join(f"{entry.collection}: {entry.reason}" for entry in known)
        raise NotReadyError(reasons or "no collection is loaded yet; `nitamono index SOURCE` makes one")

    def _load(self, collection: str, generation: int | None) -> CollectionReadiness:
        if generation is None:
            return CollectionReadiness(collection, False, None, "no generation is active; run `nitamono index SOURCE`")
        try:
            self._searcher.warm(collection)
        except NitamonoError as exc:
            logger.error("collection %s cannot be loaded: %s", collection, exc)
            return CollectionReadiness(collection, False, generation, "its index cannot be loaded; the log says why")
        return CollectionReadiness(collection, True, generation)
