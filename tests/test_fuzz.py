"""Mutated files of every format: decoding and reading raise only what they document (see tests/fuzz.py)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.fuzz import TARGETS


def mutate(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Some bytes changed, a part removed, doubled, or replaced by a part of another file."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at, length = int(rng.integers(len(found) + 1)), int(rng.integers(1, 9))
        match rng.integers(4):
            case 0:
                found[at : at + length] = rng.bytes(length)
            case 1:
                del found[at : at + length]
            case 2:
                found[at:at] = found[at : at + length]
            case _:
                start = int(rng.integers(len(other)))
                found[at : at + length] = other[start : start + length]
    return bytes(found)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_mutated_file_is_read_or_refused_with_a_reason(target: str) -> None:
    check, seeds = TARGETS[target]
    files = seeds()
    assert len(files) >= 3
    for data in files:
        check(data)
    _try(check, files, np.random.default_rng(0), 2000)


def _try(check: Callable[[bytes], None], files: list[bytes], rng: np.random.Generator, count: int) -> None:
    for number in range(count):
        data = mutate(rng, files[number % len(files)], files[int(rng.integers(len(files)))])
        try:
            check(data)
        except Exception as exc:
            raise AssertionError(f"input {number}: {data!r}") from exc
