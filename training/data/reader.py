"""Reading many image files at once: bytes, content hash and prepared pixels, from a pool of processes.

The processes import neither torch nor the catalogue, so they start fast and die with their parent. A file that brings a
process down costs that file alone.
"""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.data.decode import ImageLimits, decode_image
from training.errors import ImageError
from training.preprocessing import Preprocessing

TASK = 32  # files per task: large enough to hide the pipe, small enough to share out evenly
INLINE = 48  # fewer files than this are read here: starting processes would take longer
BUFFER_BYTES = 192 * 2**20  # prepared pixels that may wait for the consumer
T = TypeVar("T")


class Request(NamedTuple):
    """A file to read; one whose content is `known_sha256` is not decoded."""

    path: Path
    known_sha256: str | None = None


class Loaded(NamedTuple):
    """A file that was read: `pixels` is `(C, S, S)` uint8, or None where the content was known."""

    sha256: str
    size: int
    mtime_ns: int
    width: int
    height: int
    pixels: NDArray[np.uint8] | None


class Failed(NamedTuple):
    """A file that was not usable, why, and its size and time where it has them."""

    reason: str
    size: int | None = None
    mtime_ns: int | None = None


Outcome = Loaded | Failed


def read_files(
    requests: Iterable[tuple[T, Request]],
    preprocessing: Preprocessing,
    *,
    processes: int | None = None,
    limits: ImageLimits | None = None,
) -> Iterator[tuple[T, Outcome]]:
    """Read files ahead of the consumer, in order; each comes back with the tag it was asked for with.

    Args:
        requests: (tag, request) pairs, consumed lazily.
        processes: how many to use; None is one per core, 0 reads in this process.
    """
    limits = limits or ImageLimits()
    processes = os.cpu_count() or 1 if processes is None else processes
    iterator = iter(requests)
    head = list(itertools.islice(iterator, INLINE))
    if processes == 0 or len(head) < INLINE:
        for tag, request in itertools.chain(head, iterator):
            yield tag, read_file(request, preprocessing, limits)
        return
    pool = _Pool(processes, preprocessing, limits)
    try:
        yield from pool.run(itertools.chain(head, iterator))
    finally:
        pool.close()


def read_file(request: Request, preprocessing: Preprocessing, limits: ImageLimits) -> Outcome:
    """Read, hash and prepare one file; never raises for what is wrong with the file."""
    try:
        stat = request.path.stat()
        if not S_ISREG(stat.st_mode):
            return Failed("not a regular file: an image file was expected here")
        limits.check_bytes(stat.st_size)
        data = request.path.read_bytes()
    except FileNotFoundError:
        return Failed("the file does not exist")
    except ImageError as exc:
        return Failed(str(exc), stat.st_size, stat.st_mtime_ns)
    except OSError as exc:
        return Failed(f"the file cannot be read ({exc.strerror})")
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 == request.known_sha256:
        return Loaded(sha256, stat.st_size, stat.st_mtime_ns, 0, 0, None)
    try:
        decoded = decode_image(data, at_least=preprocessing.size, limits=limits)
    except ImageError as exc:
        return Failed(str(exc), stat.st_size, stat.st_mtime_ns)
    pixels = preprocessing.apply(decoded.pixels)
    return Loaded(sha256, stat.st_size, stat.st_mtime_ns, decoded.width, decoded.height, pixels)


class _Pool:
    """Worker processes with a bounded number of tasks in flight, replaced when a file brings one down."""

    def __init__(self, processes: int, preprocessing: Preprocessing, limits: ImageLimits) -> None:
        self._arguments = (preprocessing, limits)
        self._processes = processes
        per_image = preprocessing.channels * preprocessing.size**2
        self._window = max(2 * processes, BUFFER_BYTES // (per_image * TASK))
        self._executor = self._start(processes)

    def run(self, requests: Iterable[tuple[T, Request]]) -> Iterator[tuple[T, Outcome]]:
        waiting: deque[tuple[list[tuple[T, Request]], Future[list[Outcome]]]] = deque()
        iterator = iter(requests)
        while True:
            while len(waiting) < self._window and (task := list(itertools.islice(iterator, TASK))):
                waiting.append((task, self._submit([request for _, request in task])))
                if waiting[0][1].done():
                    break
            if not waiting:
                return
            task, future = waiting.popleft()
            try:
                outcomes = future.result()
            except BrokenProcessPool:
                outcomes = self._read_one_by_one([request for _, request in task])
                waiting = deque((task, self._submit([request for _, request in task])) for task, _ in waiting)
            yield from zip((tag for tag, _ in task), outcomes, strict=True)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _submit(self, requests: Sequence[Request]) -> Future[list[Outcome]]:
        try:
            return self._executor.submit(_read_task, requests, *self._arguments)
        except BrokenProcessPool as exc:
            broken: Future[list[Outcome]] = Future()
            broken.set_exception(exc)
            return broken

    def _read_one_by_one(self, requests: Sequence[Request]) -> list[Outcome]:
        """After a crash: each file in a process of its own, so that only the guilty one is lost."""
        self.close()
        outcomes: list[Outcome] = []
        for request in requests:
            lone = self._start(1)
            try:
                outcomes.extend(lone.submit(_read_task, [request], *self._arguments).result())
            except BrokenProcessPool:
                outcomes.append(Failed("the decoder crashed on this file"))
            finally:
                lone.shutdown(wait=False)
        self._executor = self._start(self._processes)
        return outcomes

    @staticmethod
    def _start(processes: int) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(processes, mp_context=context, initializer=_die_with_parent)


def _read_task(requests: Sequence[Request], preprocessing: Preprocessing, limits: ImageLimits) -> list[Outcome]:
    return [read_file(request, preprocessing, limits) for request in requests]


def _die_with_parent() -> None:
    """A killed parent leaves its workers waiting on their queue for ever; this ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group; the parent decides what it means
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
