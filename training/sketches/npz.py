"""Drawings in `.npz` files without pickles; see `training.sketches.reading`."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from training.errors import SourceError

MAX_BYTES = 2**31  # of an array
LAYOUT = "arrays PART_strokes (N, 3) of numbers and PART_offsets (n + 1,) of whole numbers, such as train_strokes"
PICKLED = (
    "is pickled, and unpickling a file can run any code in it, so it is not read; "
    f"unpickle it only if you trust its source, and store it as {LAYOUT}"
)

Rows = NDArray[np.generic]


def read_parts(path: Path, parts: Sequence[str] | None = None) -> Iterator[tuple[str, Iterator[Rows | str]]]:
    """The parts of a file, and of each its drawings: rows `(N, 3)`, or what is wrong with them.

    Args:
        parts: their names; None for all.

    Raises:
        SourceError: the file is no `.npz`, holds pickles, is larger than allowed, or has another layout.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name.removesuffix(".npy"): name for name in archive.namelist()}
            _refuse_pickles(path, archive, arrays)
            found = [name.removesuffix("_strokes") for name in arrays if name.endswith("_strokes")]
            chosen = [part for part in found if parts is None or part in parts] or found
            if not chosen:
                raise SourceError(f"{path}: has no drawings; expected {LAYOUT}, found {', '.join(arrays) or 'nothing'}")
            for part in chosen:
                yield part, _drawings(path, archive, arrays, part)
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, MemoryError) as exc:
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise SourceError(f"{path}: cannot be read as an .npz file ({reason})") from exc


def _refuse_pickles(path: Path, archive: zipfile.ZipFile, arrays: dict[str, str]) -> None:
    for name, member in arrays.items():
        with archive.open(member) as file:
            dtype = _header(path, name, file)[1]
        if dtype.hasobject:
            raise SourceError(f"{path}: array {name!r} {PICKLED}")


def _header(path: Path, name: str, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    except (ValueError, TypeError, SyntaxError, RecursionError) as exc:
        raise SourceError(f"{path}: {name!r} is not an array of NumPy") from exc
    return shape, dtype


def _drawings(path: Path, archive: zipfile.ZipFile, arrays: dict[str, str], part: str) -> Iterator[Rows | str]:
    names = (f"{part}_strokes", f"{part}_offsets")
    if names[1] not in arrays:
        raise SourceError(f"{path}: {names[0]} has no {names[1]} beside it; expected {LAYOUT}")
    rows, offsets = (_array(path, archive, name, arrays[name]) for name in names)
    if rows.ndim != 2 or rows.shape[1] != 3 or rows.dtype.kind not in "iuf":
        raise SourceError(f"{path}: {names[0]} is {rows.dtype} {rows.shape}; expected numbers (N, 3)")
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or len(offsets) < 1:
        raise SourceError(f"{path}: {names[1]} is {offsets.dtype} {offsets.shape}; expected whole numbers (n + 1,)")
    bounds = offsets.astype(np.int64)
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        if not 0 <= first < last <= len(rows):
            yield f"its rows {first:,} to {last:,} are not rows of the {len(rows):,} in {names[0]}"
            continue
        yield rows[first:last] if (fault := _fault(rows[first:last])) is None else fault


def _array(path: Path, archive: zipfile.ZipFile, name: str, member: str) -> Rows:
    with archive.open(member) as file:
        shape, dtype = _header(path, name, file)
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size > min(MAX_BYTES, archive.getinfo(member).file_size):
        raise SourceError(f"{path}: {name} is {size:,} bytes; at most {MAX_BYTES:,} and the file's own are read")
    with archive.open(member) as file:
        try:
            array: Rows = npy.read_array(file, allow_pickle=False)
        except ValueError as exc:
            raise SourceError(f"{path}: {name!r} is not an array of NumPy ({exc})") from exc
    return array


def _fault(rows: Rows) -> str | None:
    if rows.dtype.kind == "f" and not bool(np.isfinite(rows).all()):
        return "it has a value that is not a finite number"
    if not bool(np.isin(rows[:, 2], (0, 1)).all()):
        return "its third column, pen lifted, has values other than 0 and 1"
    return None
