"""A small drawn set that the tests of swaps and of comparisons share, since drawing is slow."""

from __future__ import annotations

import pytest

from indexer.evaluate.swap_sources import studio_set
from indexer.evaluate.swaps import SwapSet


@pytest.fixture(scope="session")
def drawn_with_counts() -> tuple[SwapSet, list[int]]:
    """Eight items of the shop on four backgrounds at 48 pixels, and the counts that were told while drawing."""
    counts: list[int] = []
    return studio_set("shop", 8, per_item=4, side=48, advance=counts.append), counts


@pytest.fixture(scope="session")
def drawn(drawn_with_counts: tuple[SwapSet, list[int]]) -> SwapSet:
    return drawn_with_counts[0]
