"""Arrays that are mapped from a file where they would take too much of the computer's memory. Imports no torch."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LARGEST = 0.4  # of the memory that is free; training holds the images twice while it splits them
MEMINFO = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")


def bytes_array(shape: tuple[int, ...], folder: Path | None) -> NDArray[np.uint8]:
    """A new array, mapped from a file without a name in `folder` if it is too large; the file ends with the array.

    Args:
        folder: None always gives an array in memory.
    """
    free = free_memory()
    if folder is None or free is None or math.prod(shape) <= LARGEST * free:
        return np.empty(shape, dtype=np.uint8)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)


def rows_of(array: NDArray[np.uint8], rows: NDArray[np.intp], folder: Path | None) -> NDArray[np.uint8]:
    """A copy of some rows of an array, in memory or mapped as `bytes_array`."""
    copy = bytes_array((len(rows), *array.shape[1:]), folder)
    at_once = max(1, 2**26 // max(1, math.prod(array.shape[1:])))
    for first in range(0, len(rows), at_once):
        copy[first : first + at_once] = array[rows[first : first + at_once]]
    return copy


def free_memory() -> int | None:
    """Bytes that this computer, or the container around this process, has free; None where that is not known."""
    found = []
    try:
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * int(line.split()[1]))
    except OSError:
        pass
    try:
        limit, used = ((CONTAINER / name).read_text().strip() for name in ("memory.max", "memory.current"))
        if limit != "max":
            found.append(int(limit) - int(used))
    except OSError:
        pass
    return min(found, default=None)
