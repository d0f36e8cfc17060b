"""Confidence intervals for means of values in [0, 1] that stay valid near 0 and 1, where plain resampling fails.

If all of 20 values are 1, every resample consists of ones: the percentile interval is the single point 1, and does not
cover a true .98 in two thirds of all samples (docs/studies/measures.md has the coverage of each method). Two remedies:

- A mean: the exact interval of Clopper, Pearson: The Use of Confidence or Fiducial Limits Illustrated in the Case of
  the Binomial, 1934, https://doi.org/10.1093/biomet/26.4.404, at the effective size n* = n p (1 - p) / s^2, as Korn,
  Graubard: Confidence Intervals for Proportions with Small Expected Number of Positive Counts Estimated from Survey
  Data, Survey Methodology 24, 1998. s^2 is the variance of the values (for items with several values, of their
  residuals) with one pseudo-item added, half of it at 0 and half at 1. For binary values, one for each item, n* = n and
  the interval is the exact one. Values between 0 and 1 vary less, and n* is larger.
- A paired difference, or a ratio, of two such means: percentiles of resamples that can also draw the pseudo-item.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
TAILS = (0.025, 0.975)
ROUNDING = 1e-9


def effective_size(sums: Numbers, sizes: Numbers) -> float:
    """Number of independent binary values with the same information about the mean.

    Args:
        sums: `(n,)` sum of each item's values, which are in [0, 1].
        sizes: `(n,)` number of values of each item, 1 or more.
    """
    count, size = len(sums), sizes.mean()
    mean = (sums.sum() / size + 0.5) / (count + 1)
    residuals = (sums - mean * sizes) / size
    squares = np.square(residuals).sum() + 0.5 * (mean**2 + (1 - mean) ** 2)
    return float(count * mean * (1 - mean) * (count + 1) / squares)


def exact_interval(mean: float, size: float) -> tuple[float, float]:
    """The 95 % Clopper-Pearson interval of a proportion of `size` values, which need not be an integer."""
    from scipy.stats import beta

    hits, misses = mean * size, (1 - mean) * size
    low = beta.ppf(TAILS[0], hits, misses + 1) if hits > ROUNDING else 0.0
    high = beta.ppf(TAILS[1], hits + 1, misses) if misses > ROUNDING else 1.0
    return float(low), float(high)


def expanded_tails(count: int) -> tuple[float, float]:
    """Percentiles of the resampled means that give a 95 % interval with `count` items, in percent.

    With few items, resampled means vary too little, so both percentiles are expanded to match Student's t (Hesterberg:
    What Teachers Should Know About the Bootstrap, 2015, https://doi.org/10.1080/00031305.2015.1089789).
    """
    from scipy.stats import norm, t

    if count < 2:
        return 100 * TAILS[0], 100 * TAILS[1]
    below = 100 * float(norm.cdf(np.sqrt(count / (count - 1)) * t.ppf(TAILS[0], count - 1)))
    return below, 100 - below


def with_pseudo_item(count: int, replicates: int, seed: int) -> tuple[Numbers, Numbers, Numbers]:
    """Counts of the items in resamples `(replicates, count)`, and of a pseudo-item's halves at 0 and at 1."""
    chances = np.append(np.full(count, 1.0), [0.5, 0.5]) / (count + 1)
    drawn = np.random.default_rng(seed).multinomial(count, chances, size=replicates).astype(np.float64)
    return drawn[:, :count], drawn[:, count], drawn[:, count + 1]
