"""Readiness of collections: whether the active generation and its encoder are loaded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import anyio
import anyio.to_thread

from indexer.catalogue.home import Home
from indexer.errors import BusyError, CatalogueError, CorruptError
from indexer.search.searcher import Searcher
from service.errors import NotReadyError
from service.logs import error_once
from training.errors import NitamonoError

PATIENCE = 0.05  # seconds that a probe of a ready server waits for the check
FIRST_PATIENCE = 2.0  # the same while nothing is ready
KEY_PATIENCE = 0.5  # seconds that a probe waits for the check of its key; the probes of Kubernetes wait 1 s by default
PROBE_THREADS = 2
WATCH_EVERY = 10.0  # seconds
REST = 1000  # times the duration of a check of the catalogue's structure, until the next one
DAMAGED = "its index or encoder is damaged; run `nitamono repair`"
DAMAGED_ON_DISK = (
    "its files are damaged on the disk; searches use the copy in memory, a restart could not load it; run "
    "`nitamono repair`"
)


@dataclass(frozen=True)
class CollectionReadiness:
    """Readiness of a collection; `reason` explains why it is not ready, or would not be after a restart."""

    collection: str
    ready: bool
    generation: int | None
    reason: str | None = None

    @property
    def is_damaged(self) -> bool:
        """Whether its files on the disk are damaged."""
        return self.reason in (DAMAGED, DAMAGED_ON_DISK)


class Readiness:
    """Loads the active generations, and watches over the home while the server runs."""

    def __init__(self, home: Home, searcher: Searcher) -> None:
        self._home = home
        self._searcher = searcher
        self._lock = threading.Lock()
        self._known: list[CollectionReadiness] | None = None  # None until the first check has ended
        self._trouble: CatalogueError | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._threads = anyio.CapacityLimiter(PROBE_THREADS)

    @property
    def known(self) -> list[CollectionReadiness]:
        """The state of all collections when they were last checked."""
        return self._known or []

    def start(self) -> None:
        """Load and watch in the background, so that a server that is still loading answers liveness probes."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; waits until loading ends."""
        self._stopping.set()
        self._thread.join()

    def check(self) -> list[CollectionReadiness]:
        """Load what is missing and report readiness; while another thread is loading, report the last known state.

        Raises:
            CatalogueError: the catalogue cannot be used.
        """
        if self._lock.acquire(blocking=False):
            try:
                active = self._home.catalogue.collections.active()
                self._known, self._trouble = [self._load(name, generation) for name, generation in active], None
            except CatalogueError as exc:
                self._known, self._trouble = [], exc
            finally:
                self._lock.release()
        if self._trouble is not None:
            raise self._trouble
        return self.known

    def _watch(self) -> None:
        """Check collections every `WATCH_EVERY` s, and the whole catalogue after `REST`."""
        due = float("-inf")
        while True:
            try:
                self.check()
                if (began := time.monotonic()) >= due:
                    self._home.catalogue.database.check()
                    due = began + REST * (time.monotonic() - began)
            except NitamonoError as exc:
                error_once(str(exc))
            if self._stopping.wait(WATCH_EVERY):
                return

    async def require(self) -> list[CollectionReadiness]:
        """Check in a thread apart from those of requests; if that takes long, report the last known state meanwhile.

        Raises:
            NotReadyError: no collection can be searched.
            CatalogueError: the catalogue cannot be used.
        """
        known = self.known
        with anyio.move_on_after(PATIENCE if any(entry.ready for entry in known) else FIRST_PATIENCE):
            known = await anyio.to_thread.run_sync(self.check, abandon_on_cancel=True, limiter=self._threads)
        if any(entry.ready for entry in known):
            return known
        if self._trouble is not None:
            raise self._trouble
        if self._known is None:
            raise NotReadyError("the collections are being loaded; try again in a moment")
        reasons = "; ".join(f"{entry.collection}: {entry.reason}" for entry in known)
        raise NotReadyError(reasons or "there is no collection yet; run `nitamono index SOURCE`")

    async def in_probe(self, check: Callable[[], bool]) -> bool:
        """Run a check in a thread of the probes; False if it takes long or fails, as with a damaged database."""
        allowed = False
        with anyio.move_on_after(KEY_PATIENCE if self._known else FIRST_PATIENCE), suppress(NitamonoError):
            allowed = await anyio.to_thread.run_sync(check, abandon_on_cancel=True, limiter=self._threads)
        return allowed

    def _load(self, collection: str, generation: int | None) -> CollectionReadiness:
        if generation is None:
            return CollectionReadiness(collection, False, None, "no generation is active; run `nitamono index SOURCE`")
        try:
            self._searcher.warm(collection)
            damage = self._searcher.damage(collection)
        except CorruptError as exc:
            error_once(f"collection {collection} cannot be loaded: {exc}")
            return CollectionReadiness(collection, False, generation, DAMAGED)
        except (CatalogueError, BusyError):
            raise
        except NitamonoError as exc:
            error_once(f"collection {collection} cannot be loaded: {exc}")
            return CollectionReadiness(collection, False, generation, "its index cannot be loaded; see the log")
        if damage is not None:
            error_once(f"collection {collection} is searched from memory, because its files are damaged: {damage}")
            return CollectionReadiness(collection, True, generation, DAMAGED_ON_DISK)
        return CollectionReadiness(collection, True, generation)
