"""Paired comparisons of two encoders on the same items: mean difference and permutation test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.measures.metrics import Bootstrap, Interval

PERMUTATIONS = 9999


class Paired(NamedTuple):
    """A mean difference with its interval, and the p-value of the null hypothesis of no difference."""

    difference: Interval
    p: float

    def to_json(self) -> dict[str, Any]:
        return {**self.difference.to_json(), "p": self.p}


def paired_test(
    values: NDArray[np.float64],
    base: NDArray[np.float64],
    bootstrap: Bootstrap,
    *,
    of_shares: bool = False,
    seed: int = 0,
) -> Paired:
    """Test the mean of values minus base, `(I,)` each; items without both are ignored.

    The p-value is that of the two-sided permutation test, which swaps the two encoders on random items (Smucker, Allan,
    Carterette: A comparison of statistical significance tests for information retrieval evaluation, CIKM 2007, section
    3.1, https://doi.org/10.1145/1321440.1321528). With 9,999 permutations it is at least 1e-4.

    Args:
        of_shares: both are in [0, 1], and the interval never has zero width (`Bootstrap.difference`).
    """
    difference = values - base
    interval = bootstrap.difference(values, base) if of_shares else bootstrap.interval(difference)
    known = difference[~np.isnan(difference)]
    if not len(known):
        return Paired(interval, float("nan"))
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, (PERMUTATIONS, len(known)), dtype=np.int8) * 2.0 - 1.0
    exchanged = np.abs(signs @ known)
    rounding = 1e-12 * float(np.abs(known).sum())  # tolerance for sums in another order, relative to the scale
    p = (1 + int((exchanged >= abs(known.sum()) - rounding).sum())) / (PERMUTATIONS + 1)
    return Paired(interval, p)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted for multiple tests; NaN is kept and does not count as a test.

    Holm: A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    known = sorted((p, name) for name, p in p_values.items() if not np.isnan(p))
    adjusted, highest = dict(p_values), 0.0
    for place, (p, name) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - place)))
        adjusted[name] = highest
    return adjusted
