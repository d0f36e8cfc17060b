"""Conversions between Python values and database columns: times, vectors, and long lists of keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

CHUNK = 500  # values per IN list: SQLite's oldest limit is 999
VECTOR = np.dtype("<f4")  # stored vectors are little-endian float32
T = TypeVar("T")


def now() -> datetime:
    return datetime.now(UTC)


def utc(moment: datetime) -> datetime:
    """The moment with its time zone: SQLite returns stored UTC times without one."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def utc_or_none(moment: datetime | None) -> datetime | None:
    return None if moment is None else utc(moment)


def to_blob(vector: NDArray[np.floating]) -> bytes:
    return vector.astype(VECTOR).tobytes()


def from_blob(blob: bytes) -> NDArray[np.float32]:
    """A stored vector `(dim,)`, read-only."""
    return np.frombuffer(blob, VECTOR).astype(np.float32, copy=False)


def from_blobs(blobs: Sequence[bytes], dim: int) -> NDArray[np.float32]:
    """Stored vectors `(n, dim)`."""
    return np.frombuffer(b"".join(blobs), VECTOR).reshape(len(blobs), dim).astype(np.float32)


def chunks(values: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk
