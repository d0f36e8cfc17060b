"""A fit over several devices of this machine: one process for each, of which this one is the first.

The others are started once per run, take part in each of its stages, and end with this process. What they fit is
handed over in a file that they map into memory, so that the examples are in memory once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from training.data.processes import ChildProcess, Ended, Signal
from training.errors import EncoderError, NitamonoError, ProcessError, RecipeError
from training.recipes import Recipe

LONGEST_WAIT = timedelta(hours=1)  # of processes for the first one, while it draws pictures
JOB, MEETING = "job.pt", "meeting"  # files through which the processes find their work and each other

Fit = Callable[[Any, "Rank"], dict[str, Any]]


class Rank(NamedTuple):
    """The number of a process, and how many there are."""

    number: int = 0
    of: int = 1


class Order(NamedTuple):
    """What another process is told: the folder of the job, its rank, its threads, and the backend."""

    folder: Path
    rank: Rank
    threads: int
    backend: str
    fit: Fit


class Devices:
    """The devices of a fit.

    Args:
        kind: auto, cpu or gpu.
        count: number of devices; on the CPU, of processes.

    Raises:
        EncoderError: there are not so many.
    """

    def __init__(self, kind: str = "auto", count: int = 1) -> None:
        if count < 1:
            raise EncoderError(f"devices must be at least 1, not {count}")
        found = torch.cuda.device_count() if kind != "cpu" else 0
        if kind == "gpu" and count > 1 and not found:
            raise EncoderError(f"devices is {count}, but this machine has no GPU; choose --device cpu")
        if 0 < found < count:
            raise EncoderError(
                f"devices is {count}, but this machine has {found} GPU{'' if found == 1 else 's'}; "
                f"choose at most {found}, or --device cpu"
            )
        self.kind = kind if count == 1 or kind != "auto" else "gpu" if found else "cpu"
        self.count = count
        self._others: list[ChildProcess[Order, None]] = []

    @property
    def has_cuda(self) -> bool:
        return self.kind != "cpu" and torch.cuda.is_available()

    def check_batches(self, recipe: Recipe) -> None:
        """RecipeError if the batches of a recipe do not divide over the devices."""
        size, count = recipe.batch_size, self.count
        if size % count:
            below = size // count * count
            raise RecipeError(
                f"recipe {recipe.name}: batch_size {size} does not divide over {count} devices; "
                f"set it to {f'{below} or ' if below else ''}{below + count}"
            )

    def fit(self, fit: Fit, job: Any, folder: Path) -> dict[str, Any]:
        """Run `fit(job, rank)` in every process, and return the result of the first one, which is this one.

        Args:
            fit: a function of a module.
            folder: in which the job is handed over; a file of the size of the examples is there during the fit.

        Raises:
            ProcessError: another process ended before it was done.
        """
        if self.count == 1:
            return fit(job, Rank())
        own_threads = torch.get_num_threads()
        threads = max(1, own_threads // self.count) if self.kind == "cpu" else own_threads
        with TemporaryDirectory(prefix="shared-", dir=folder) as shared:
            torch.save(job, Path(shared) / JOB)
            orders = [self._order(Path(shared), number, threads, fit) for number in range(self.count)]
            try:
                self._others = self._others or [ChildProcess(_obey) for _ in orders[1:]]
                for child, order in zip(self._others, orders[1:], strict=True):
                    child.send(order)
                result = self._first(orders[0], job)
                for child in self._others:
                    _wait_for(child)
            except BaseException:
                self.close()
                raise
            finally:
                torch.set_num_threads(own_threads)
        return result

    def __getstate__(self) -> dict[str, Any]:
        return {"kind": self.kind, "count": self.count, "_others": []}  # without the processes, for another one

    def close(self) -> None:
        """End the other processes."""
        for child in self._others:
            child.kill()
        self._others = []

    def _order(self, folder: Path, number: int, threads: int, fit: Fit) -> Order:
        return Order(folder, Rank(number, self.count), threads, "nccl" if self.kind == "gpu" else "gloo", fit)

    def _first(self, order: Order, job: Any) -> dict[str, Any]:
        try:
            return _take_part(order, job)
        except NitamonoError:
            raise
        except Exception:
            for child in self._others:  # if another process failed, this one only lost its connection
                if child.connection.poll(1.0):
                    _wait_for(child)
            raise


class Processes(LightningEnvironment):
    """Tells Lightning that the processes are there and have met."""

    def __init__(self, rank: Rank) -> None:
        super().__init__()
        self._rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def local_rank(self) -> int:
        return self._rank.number


def _obey(order: Order) -> None:
    """What another process does."""
    job = torch.load(order.folder / JOB, map_location="cpu", mmap=True, weights_only=False)
    _take_part(order, job)


def _take_part(order: Order, job: Any) -> dict[str, Any]:
    torch.set_num_threads(order.threads)
    with _meeting(order):
        return order.fit(job, order.rank)


def _wait_for(child: ChildProcess[Order, None]) -> None:
    try:
        while isinstance(child.receive(), Signal):
            pass
    except Ended as exc:
        raise ProcessError(
            f"the process of another device ended unexpectedly (exit status {child.exit_status()}); "
            "resume the run with --resume, or use fewer devices"
        ) from exc


@contextmanager
def _meeting(order: Order) -> Iterator[None]:
    """The group of all processes; they find each other through a file, and no port is open to other machines."""
    if order.backend == "nccl":
        torch.cuda.set_device(order.rank.number)
    elif sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        order.backend,
        init_method=(order.folder / MEETING).absolute().as_uri(),
        rank=order.rank.number,
        world_size=order.rank.of,
        timeout=LONGEST_WAIT,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()
