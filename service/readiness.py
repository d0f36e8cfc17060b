"""Readiness of collections: whether the active generation and its encoder are loaded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import anyio
import anyio.to_thread

from indexer.catalogue.home import Home
from indexer.errors import CorruptError
from indexer.search.searcher import Searcher
from service.errors import NotReadyError
from training.errors import NitamonoError

PATIENCE = 0.05  # seconds that a probe of a ready server waits for the check
FIRST_PATIENCE = 2.0  # the same while nothing is ready
PROBE_THREADS = 2
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
        self._threads = anyio.CapacityLimiter(PROBE_THREADS)

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
                self._load(name, generation) for name, generation in self._home.catalogue.collections.active()
            ]
            return self._known
        finally:
            self._lock.release()

    async def require(self) -> list[CollectionReadiness]:
        """Check in a thread apart from those of requests, and raise `NotReadyError` if no collection can be searched.

        If the check takes long, the last known state is reported, and the check goes on.
        """
        known = self._known
        with anyio.move_on_after(PATIENCE if any(entry.ready for entry in known) else FIRST_PATIENCE):
            known = await anyio.to_thread.run_sync(self.check, abandon_on_cancel=True, limiter=self._threads)
        if any(entry.ready for entry in known):
            return known
        reasons = "; ".join(f"{entry.collection}: {entry.reason}" for entry in known)
        raise NotReadyError(reasons or "there is no collection yet; run `nitamono index SOURCE`")

    async def in_probe(self, check: Callable[[], bool]) -> bool:
        """Run a check in a thread of the probes; False if it takes long or fails, as with a damaged database."""
        allowed = False
        with anyio.move_on_after(PATIENCE if self._known else FIRST_PATIENCE), suppress(NitamonoError):
            allowed = await anyio.to_thread.run_sync(check, abandon_on_cancel=True, limiter=self._threads)
        return allowed

    def _load(self, collection: str, generation: int | None) -> CollectionReadiness:
        if generation is None:
            return CollectionReadiness(collection, False, None, "no generation is active; run `nitamono index SOURCE`")
        try:
            self._searcher.warm(collection)
        except CorruptError as exc:
            logger.error("collection %s cannot be loaded: %s", collection, exc)
            return CollectionReadiness(
                collection, False, generation, "its index or encoder is damaged; run `nitamono repair`"
            )
        except NitamonoError as exc:
            logger.error("collection %s cannot be loaded: %s", collection, exc)
            return CollectionReadiness(collection, False, generation, "its index cannot be loaded; see the log")
        return CollectionReadiness(collection, True, generation)
