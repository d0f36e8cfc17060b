"""Read many image files at once, in a pool of processes: bytes, content hash and preprocessed pixels.

The processes (`training.data.processes`) import neither torch nor the catalogue, so they start fast. If a file crashes
the process that reads it, only that file fails.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from numpy.typing import NDArray

from training.data.decode import ImageLimits, decode_image
from training.data.processes import ChildProcess, Ended
from training.errors import ImageError, ProcessError
from training.preprocessing import Preprocessing
from training.reference import AnyPreprocessing

if TYPE_CHECKING:  # masks import OpenCV, which most reading processes do not need
    from training.data.masks import Mask, MaskRequest

TASK = 32  # files per task: enough to hide the cost of the pipe, few enough for an even load
INLINE = 48  # fewer files than this are read in this process, because starting others would take longer
BUFFER_BYTES = 192 * 2**20  # limit of the preprocessed pixels that wait for the consumer
ATTEMPTS = 2  # at reading a file whose process crashes, and at starting a process
T = TypeVar("T")


class Request(NamedTuple):
    """A file to read.

    Args:
        known: SHA-256 of contents read before; a file with one of them is not decoded again.
        mask: how to find the item's mask; None finds none.
    """

    path: Path
    known: frozenset[str] = frozenset()
    mask: MaskRequest | None = None


class Loaded(NamedTuple):
    """A file that was read.

    Args:
        pixels: the prepared image or drawing, as `of` of the preprocessing returns it; None if the content was known.
        mask: the item's mask, `(S, S)`, if the request asked for one and it was found.
    """

    sha256: str
    size: int
    mtime_ns: int
    width: int
    height: int
    pixels: NDArray[Any] | None
    mask: Mask | None = None


class Failed(NamedTuple):
    """A file that cannot be used, the reason, and its size and modification time if they are known."""

    reason: str
    size: int | None = None
    mtime_ns: int | None = None


Outcome = Loaded | Failed


def read_files(
    requests: Iterable[tuple[T, Request]],
    preprocessing: AnyPreprocessing,
    *,
    processes: int | None = None,
    limits: ImageLimits | None = None,
) -> Iterator[tuple[T, Outcome]]:
    """Read files ahead of the consumer and yield `(tag, outcome)` pairs in the order of the requests.

    Args:
        requests: (tag, request) pairs, consumed lazily.
        processes: number of reading processes; None starts one per core, 0 reads in this process.

    Raises:
        ProcessError: the processes cannot be started.
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


def read_file(request: Request, preprocessing: AnyPreprocessing, limits: ImageLimits) -> Outcome:
    """Read, hash and preprocess one file; a faulty file gives `Failed` and raises nothing."""
    try:
        stat = request.path.stat()
        if not S_ISREG(stat.st_mode):
            return Failed("not a regular file; expected an image file")
        limits.check_bytes(stat.st_size)
        data = request.path.read_bytes()
    except FileNotFoundError:
        return Failed("the file does not exist")
    except ImageError as exc:
        return Failed(str(exc), stat.st_size, stat.st_mtime_ns)
    except OSError as exc:
        return Failed(f"the file cannot be read ({exc.strerror})")
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 in request.known:
        return Loaded(sha256, stat.st_size, stat.st_mtime_ns, 0, 0, None)
    try:
        decoded = decode_image(data, at_least=preprocessing.least_side, limits=limits)
        pixels = preprocessing.of(decoded)
    except ImageError as exc:
        return Failed(str(exc), stat.st_size, stat.st_mtime_ns)
    mask = None
    if request.mask is not None and isinstance(preprocessing, Preprocessing):
        mask = request.mask.find(data, decoded.pixels, preprocessing, limits)
    return Loaded(sha256, stat.st_size, stat.st_mtime_ns, decoded.width, decoded.height, pixels, mask)


def _read_all(preprocessing: AnyPreprocessing, limits: ImageLimits, requests: Sequence[Request]) -> list[Outcome]:
    return [read_file(request, preprocessing, limits) for request in requests]


class _Pool:
    """Threads that each own a reading process and share a bounded number of tasks."""

    def __init__(self, processes: int, preprocessing: AnyPreprocessing, limits: ImageLimits) -> None:
        per_image = math.prod(preprocessing.shape)
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


_Child = ChildProcess[Sequence[Request], list[Outcome]]


class _Task(NamedTuple):
    requests: list[Request]
    outcomes: Future[list[Outcome]]


class _Reader(threading.Thread):
    """A thread that sends tasks to its process and starts another one when that process ends."""

    def __init__(self, tasks: SimpleQueue[_Task | None], preprocessing: AnyPreprocessing, limits: ImageLimits) -> None:
        super().__init__(name="reader", daemon=True)
        self._tasks = tasks
        self._function = partial(_read_all, preprocessing, limits)
        self._process: _Child | None = None
        self._lock = threading.Lock()
        self._closed = False
        self.start()

    def run(self) -> None:
        while (task := self._tasks.get()) is not None and not self._closed:
            try:
                task.outcomes.set_result(self._read(task.requests))
            except BaseException as exc:  # noqa: BLE001 - raised again by whoever waits for the outcome
                task.outcomes.set_exception(exc)

    def close(self) -> None:
        """Kill the process at once; the thread then ends by itself."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _read(self, requests: Sequence[Request]) -> list[Outcome]:
        """Read a task; after a crash, read each file on its own, so that only the faulty one fails."""
        try:
            return self._ask(requests)
        except Ended:
            return [self._read_alone(request) for request in requests]

    def _read_alone(self, request: Request) -> Outcome:
        for _ in range(ATTEMPTS):  # something else may have killed the first process
            try:
                return self._ask([request])[0]
            except Ended:
                continue
        return Failed("the decoder crashed on this file")

    def _ask(self, requests: Sequence[Request]) -> list[Outcome]:
        process = self._process or self._start()
        try:
            return process.ask(requests)
        except Ended:
            self._process = None
            raise

    def _start(self) -> _Child:
        for _ in range(ATTEMPTS):
            with self._lock:
                if self._closed:
                    break
                self._process = process = ChildProcess(self._function)
            if process.is_ready():
                return process
            self._process = None
        raise ProcessError(
            "the processes that read images end as soon as they start; free some memory, or use --processes 0"
        )
