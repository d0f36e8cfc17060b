"""Child processes that apply a function to each object sent to them through a pipe of their own.

They share no lock or queue: a process that is killed at any moment, even while it answers, leaves nothing behind that
another one waits for. Each ends when its pipe closes, and therefore with its parent, however the parent ends. Ctrl+C
reaches the whole process group; child processes block it, and their parent decides what to do.

Imports no torch: child processes start fast.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from training.errors import NitamonoError, ProcessError

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # set to 1: there is about one process per core
_STARTING = threading.Lock()  # starting a process is not safe in two threads at once
A = TypeVar("A")
R = TypeVar("R")


class Signal(Enum):
    """The first answer of a child process."""

    READY = "ready"


class Ended(Exception):
    """A child process ended before it answered."""


class ChildProcess(Generic[A, R]):
    """A child process that applies a function to each argument sent to it and answers with the result.

    Args:
        function: picklable. A NitamonoError or OSError that it raises is raised by `receive`; any other exception ends
            the process.
    """

    def __init__(self, function: Callable[[A], R]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        with _safe_start():
            try:
                self._process.start()
            finally:
                theirs.close()  # so that the pipe closes when the process ends

    def is_ready(self) -> bool:
        """Wait until the process has started; False if it ended instead."""
        try:
            return self.receive() is Signal.READY
        except Ended:
            return False

    def send(self, argument: A) -> None:
        """Send an argument; raises Ended."""
        try:
            self.connection.send(argument)
        except OSError as exc:
            raise Ended from exc

    def receive(self) -> R | Signal:
        """Wait for the next answer, of which the first is `Signal.READY`; raises Ended."""
        try:
            answer: Any = self.connection.recv()
        except (EOFError, OSError) as exc:
            raise Ended from exc
        if isinstance(answer, BaseException):
            raise answer
        result: R | Signal = answer
        return result

    def ask(self, argument: A) -> R:
        """Send an argument and wait for its result; raises Ended."""
        self.send(argument)
        while isinstance(answer := self.receive(), Signal):
            pass
        return answer

    def exit_status(self) -> int | None:
        """The exit status of a process that has ended, negative if a signal ended it."""
        self._process.join(timeout=1.0)  # its pipe closes a moment before it ends
        return self._process.exitcode

    def kill(self) -> None:
        """Kill the process if it is still running."""
        self._process.kill()
        self._process.join()


def map_in_processes(function: Callable[[A], R], arguments: Iterable[A], processes: int) -> Iterator[R]:
    """Apply a function to each argument in several processes; yields the results in the order in which they finish.

    Args:
        function: as in `ChildProcess`; its first error ends all processes.

    Raises:
        ProcessError: a process ended before it answered.
    """
    pending = deque(arguments)
    children: list[ChildProcess[A, R]] = []
    try:
        children += [ChildProcess(function) for _ in range(min(processes, len(pending)))]
        busy = {child.connection: child for child in children}
        while busy:
            for connection in wait(list(busy)):
                child = busy[connection]  # type: ignore[index]  # these are all connections
                try:
                    answer = child.receive()
                    if pending:
                        child.send(pending.popleft())
                    else:
                        del busy[child.connection]
                except Ended as exc:
                    raise _unexpected_end(child) from exc
                if not isinstance(answer, Signal):
                    yield answer
    finally:
        for child in children:
            child.kill()


def _unexpected_end(child: ChildProcess[A, R]) -> ProcessError:
    status = child.exit_status()
    return ProcessError(
        f"a child process ended unexpectedly (exit status {status}); free some memory, or use fewer processes"
    )


def hold_starts(seconds: float = 1.0) -> None:
    """Let a start that is under way finish and allow no other one, because this process is about to exit.

    A child process whose parent exits while starting it would print an error.
    """
    _STARTING.acquire(timeout=seconds)


@contextmanager
def _safe_start() -> Iterator[None]:
    """Start one process at a time, with Ctrl+C blocked and one thread for numerical libraries."""
    with _STARTING:
        resource_tracker.ensure_running()  # which would unblock Ctrl+C
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        before = {name: os.environ.get(name) for name in ONE_THREAD}
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """Answer until the parent closes its end of the pipe, which also happens when it is killed."""
    with connection, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(Signal.READY)
        while True:
            connection.send(_applied(function, connection.recv()))


def _applied(function: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return function(argument)
    except (NitamonoError, OSError) as exc:
        return exc
