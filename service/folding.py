"""Folds live changes into new generations in the background, before there are so many that searches slow down.

Live items are searched exactly, in every search. Once a collection has many, a process of its own builds a generation
that includes them, while searches go on; of several server processes, one does so.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress

from indexer.catalogue.home import Home
from indexer.errors import BusyError, ReadOnlyError
from service.logs import error_once
from service.settings import Settings
from training.errors import NitamonoError

logger = logging.getLogger("nitamono")

EVERY = 60.0  # seconds between two looks at the number of live items
LIVE_SHARE = 0.02  # of a collection's vectors: an index is not built anew for fewer live items
NICENESS = 10  # of the process that builds: searches go first


class Folding:
    """Watches the live items of all collections in a thread of its own; `settings.fold_items` 0 watches nothing."""

    def __init__(self, home: Home, settings: Settings, *, every: float = EVERY) -> None:
        self._home = home
        self._settings = settings
        self._every = every
        self._stopping = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._watch, name="fold", daemon=True)

    def start(self) -> None:
        if self._settings.fold_items:
            self._thread.start()

    def stop(self) -> None:
        """Stop watching, and end a build that is running; the active generation stays as it is."""
        self._stopping.set()
        if (child := self._child) is not None:
            with suppress(ProcessLookupError):
                child.terminate()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(self._every):
            try:
                for collection in self.due():
                    self._fold(collection)
            except NitamonoError as exc:
                error_once(f"live items cannot be folded: {exc}")

    def due(self) -> list[str]:
        """The collections with so many live items that a new generation should include them."""
        return [
            record.collection
            for record, live in self._home.catalogue.active_generations()
            if live >= max(self._settings.fold_items, LIVE_SHARE * record.count)
        ]

    def _fold(self, collection: str) -> None:
        try:
            with self._home.lock(f"fold-{collection}"):
                logger.info("folding the live items of %s into a new generation", collection)
                error = self._build(collection)
        except (BusyError, ReadOnlyError):
            return  # another worker does it, or nobody can
        if error is not None and not self._stopping.is_set():
            error_once(f"the live items of {collection} could not be folded: {error}")

    def _build(self, collection: str) -> str | None:
        """Run `nitamono generations build`; returns its error."""
        words = ["generations", "build", "--collection", collection, "--home", str(self._settings.home)]
        with subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "service.cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            self._child = child
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, child.pid, NICENESS)
            if self._stopping.is_set():
                child.terminate()
            _, said = child.communicate()
        self._child = None
        return None if child.returncode == 0 else (said.strip().splitlines() or [f"exit {child.returncode}"])[-1]
