"""Reading many image files at once: bytes, content hash and prepared pixels, from a pool of processes.

The processes import neither torch nor the catalogue, so they start fast and die with their parent. A file that brings a
process down costs that file alone. Each process has a pipe of its own and shares no lock or queue with the others, so
one that is killed at any moment, in the middle of an answer too, can leave nothing behind that another waits for.
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
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from stat import S_ISREG
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.data.decode import ImageLimits, decode_image
from training.errors import ImageError, ReadingError
from training.preprocessing import Preprocessing

if TYPE_CHECKING:  # masks bring OpenCV, which most readers need not load
    from training.data.masks import Mask, MaskRequest

TASK = 32  # files per task: large enough to hide the pipe, small enough to share out evenly
INLINE = 48  # fewer files than this are read here: starting processes would take longer
BUFFER_BYTES = 192 * 2**20  # prepared pixels that may wait for the consumer
ATTEMPTS = 2  # at a file that ends its process, and at starting one
_STARTING = threading.Lock()  # starting is not safe in two threads at once
T = TypeVar("T")


class Request(NamedTuple):
    """A file to read; one whose content is `known_sha256` is not decoded, one with a `mask` gets that found too."""

    path: Path
    known_sha256: str | None = None
    mask: MaskRequest | None = None


class Loaded(NamedTuple):
    """A file that was read: `pixels` is `(C, S, S)` uint8, or None where the content was known.

    `mask` is of the photo's `(S, S)`, where it was asked for.
    """

    sha256: str
    size: int
    mtime_ns: int
    width: int
    height: int
    pixels: NDArray[np.uint8] | None
    mask: Mask | None = None


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

    Raises:
        ReadingError: no process can be started.
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
    mask = request.mask.find(data, decoded.pixels, preprocessing, limits) if request.mask is not None else None
    return Loaded(sha256, stat.st_size, stat.st_mtime_ns, decoded.width, decoded.height, pixels, mask)


def hold_starts(seconds: float = 1.0) -> None:
    """Before this process ends at once: let a start that is under way finish, and allow no other.

    A process whose parent ends in the middle of starting it would complain about that.
    """
    _STARTING.acquire(timeout=seconds)


class _Pool:
    """A bounded number of tasks in flight, shared out among threads that each own a reading process."""

    def __init__(self, processes: int, preprocessing: Preprocessing, limits: ImageLimits) -> None:
        per_image = preprocessing.channels * preprocessing.size**2
        self._window = max(2 * processes, BUFFER_BYTES // (per_image * TASK))
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._readers = [_Reader(self._tasks, preprocessing, limits) for _ in range(processes)]

    def run(self, requests: Iterable[tuple[T, Request]]) -> Iterator[tuple[T, Outcome]]:
        waiting: deque[tuple[list[tuple[T, Request]], Future[list[Outcome]]]] = deque()
        iterator = iter(requests)
        while True:
            while len(waiting) < self._window and (tagged := list(itertools.islice(iterator, TASK))):
                task = _Task([request for _, request in tagged], Future())
                self._tasks.put(task)
                waiting.append((tagged, task.outcomes))
                if waiting[0][1].done():
                    break
            if not waiting:
                return
            tagged, outcomes = waiting.popleft()
            yield from zip((tag for tag, _ in tagged), outcomes.result(), strict=True)

    def close(self) -> None:
        for reader in self._readers:
            self._tasks.put(None)
            reader.close()


class _Task(NamedTuple):
    requests: list[Request]
    outcomes: Future[list[Outcome]]


class _Reader(threading.Thread):
    """A thread that hands tasks to its process, and starts another where that one ends."""

    def __init__(self, tasks: SimpleQueue[_Task | None], preprocessing: Preprocessing, limits: ImageLimits) -> None:
        super().__init__(name="reader", daemon=True)
        self._tasks = tasks
        self._arguments = (preprocessing, limits)
        self._process: _Process | None = None
        self._lock = threading.Lock()
        self._closed = False
        self.start()

    def run(self) -> None:
        while (task := self._tasks.get()) is not None and not self._closed:
            try:
                task.outcomes.set_result(self._read(task.requests))
            except BaseException as exc:  # noqa: BLE001 - whoever waits for the outcome is to hear of it
                task.outcomes.set_exception(exc)

    def close(self) -> None:
        """Kill the process, whatever it does; the thread ends by itself."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _read(self, requests: Sequence[Request]) -> list[Outcome]:
        """After a crash each file is read on its own, so that only the guilty one is lost."""
        try:
            return self._ask(requests)
        except _Ended:
            return [self._read_alone(request) for request in requests]

    def _read_alone(self, request: Request) -> Outcome:
        for _ in range(ATTEMPTS):  # somebody else may have killed the first process
            try:
                return self._ask([request])[0]
            except _Ended:
                continue
        return Failed("the decoder crashed on this file")

    def _ask(self, requests: Sequence[Request]) -> list[Outcome]:
        process = self._process or self._start()
        try:
            return process.read(requests)
        except _Ended:
            self._process = None
            raise

    def _start(self) -> _Process:
        for _ in range(ATTEMPTS):
            with self._lock:
                if self._closed:
                    break
                self._process = process = _Process(*self._arguments)
            if process.is_ready():
                return process
            self._process = None
        raise ReadingError("the processes that read images end as soon as they start; is there enough memory?")


class _Ended(Exception):
    """The process is not there any more."""


class _Process:
    """A process that reads files when it is asked through its pipe."""

    def __init__(self, preprocessing: Preprocessing, limits: ImageLimits) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_answer, args=(theirs, preprocessing, limits), daemon=True)
        # Ctrl+C reaches the whole group, and what it means is for this process to say: those that it starts block it.
        with _STARTING:
            resource_tracker.ensure_running()  # which would unblock it
            masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                self._process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, masked)
                theirs.close()  # so that the pipe ends with the process

    def is_ready(self) -> bool:
        """Wait for it to have started; False where it ended instead."""
        try:
            return bool(self._connection.recv())
        except (EOFError, OSError):
            return False

    def read(self, requests: Sequence[Request]) -> list[Outcome]:
        """Raises _Ended."""
        try:
            self._connection.send(requests)
            outcomes: list[Outcome] = self._connection.recv()
        except (EOFError, OSError) as exc:
            raise _Ended from exc
        return outcomes

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def _answer(connection: Connection, preprocessing: Preprocessing, limits: ImageLimits) -> None:
    """Read what is asked for until the other side closes its end, as it also does when it is killed."""
    with connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(True)
        while True:
            requests: Sequence[Request] = connection.recv()
            connection.send([read_file(request, preprocessing, limits) for request in requests])
