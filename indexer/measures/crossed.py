"""Means over random products and random backgrounds: variance components, bounds, intervals and detectable differences.

A figure x(i, b) of product i on background b is modelled as crossed random effects (Cornfield and Tukey: Average Values
of Mean Squares in Factorials, 1956, https://doi.org/10.1214/aoms/1177728067):

    x(i, b) = mean + product_i + background_b + interaction_ib

With the mean squares MS_I, MS_B and MS_IB of the two-way table of I products and B backgrounds, the variance of the
average is estimated by

    V = max(MS_I + MS_B - MS_IB, MS_I, MS_B) / (I B)

and the one-sided bound is mean - t V^0.5, where t is the quantile of Student's distribution with Satterthwaite's
degrees of freedom (An Approximate Distribution of Estimates of Variance Components, 1946,
https://doi.org/10.2307/3002019). Resampling only the products would treat the B backgrounds as the whole population and
ignore MS_B.

The displayed interval is that of the pigeonhole bootstrap, which resamples products and backgrounds (Owen: The
pigeonhole bootstrap, 2007, https://doi.org/10.1214/07-AOAS122). It counts the interaction three times;
docs/studies/gate.md has the error rates of both, and the reason why the gate uses the first.

Differs from the papers: MS_I + MS_B - MS_IB alone is unbiased, but can be smaller than the estimate of one axis, or
negative. The maximum prevents this, and is slightly too large if there is only interaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.measures.metrics import Interval

Table = NDArray[np.float64]
POWER = 0.8  # probability of detection, by convention
LARGEST = 1.0  # largest possible difference of MAP@R or of a share


class MeanSquares(NamedTuple):
    """Mean squares of the two-way analysis of variance of a table, and their degrees of freedom."""

    products: float
    backgrounds: float
    interaction: float
    freedom: tuple[int, int, int]

    def of_mean(self) -> tuple[float, float]:
        """The variance of the average, and its Satterthwaite degrees of freedom (at least 1)."""
        first, second, both = self.freedom
        cells = (first + 1) * (second + 1)
        total = max(self.products + self.backgrounds - self.interaction, self.products, self.backgrounds)
        parts = self.products**2 / first + self.backgrounds**2 / second + self.interaction**2 / both
        return total / cells, max(1.0, total**2 / parts) if parts > 0 else 1.0


class Spread(NamedTuple):
    """Standard deviations of the effects of products and of backgrounds, and of their interaction."""

    product: float
    background: float
    interaction: float

    def mean_squares(self, products: int, backgrounds: int) -> MeanSquares:
        """The expected mean squares of a table with these standard deviations."""
        both = self.interaction**2
        return MeanSquares(
            both + backgrounds * self.product**2,
            both + products * self.background**2,
            both,
            _freedom(products, backgrounds),
        )


class Bound(NamedTuple):
    """An average and a lower confidence bound of the mean; NaN if there is too little data."""

    mean: float
    low: float


def mean_squares(table: Table) -> MeanSquares:
    """The mean squares of a complete table `(I, B)`; I and B are at least 2."""
    products, backgrounds = table.shape
    mean, rows, columns = table.mean(), table.mean(axis=1), table.mean(axis=0)
    freedom = _freedom(products, backgrounds)
    rest = table - rows[:, None] - columns + mean
    return MeanSquares(
        float(backgrounds * np.square(rows - mean).sum() / freedom[0]),
        float(products * np.square(columns - mean).sum() / freedom[1]),
        float(np.square(rest).sum() / freedom[2]),
        freedom,
    )


def spread(table: Table) -> Spread:
    """Standard deviations estimated from a table's mean squares (Cornfield and Tukey); negative variances become 0."""
    products, backgrounds = table.shape
    squares = mean_squares(table)
    return Spread(
        float(np.sqrt(max(0.0, squares.products - squares.interaction) / backgrounds)),
        float(np.sqrt(max(0.0, squares.backgrounds - squares.interaction) / products)),
        float(np.sqrt(squares.interaction)),
    )


def crossed_bound(table: Table, confidence: float) -> Bound:
    """Lower confidence bound of the mean over all products and backgrounds, from a table `(I, B)` of samples.

    NaN for fewer than two products or two backgrounds, because their variance is then unknown.
    """
    mean = float(table.mean()) if table.size else float("nan")
    if min(table.shape) < 2:
        return Bound(mean, float("nan"))
    variance, freedom = mean_squares(table).of_mean()
    return Bound(mean, mean - _quantile(confidence, freedom) * float(np.sqrt(variance)))


def loss_bound(values: NDArray[np.float64], confidence: float) -> Bound:
    """Lower confidence bound of the mean of differences `(I,)` in [-1, 1]; valid even if most of them are 0.

    Twenty differences of 0 have no variance, and yet a candidate may lose one product in ten. As in Tango's score test
    for paired proportions (Equivalence test and confidence interval for the difference in proportions, 1998,
    https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C891::AID-SIM780%3E3.0.CO;2-B), a hypothetical loss of m is
    therefore tested with the variance that it implies: if the mean is -m and each non-zero loss has size s, the
    variance is at least m (s - m). The bound is the smallest -m with

        (mean + m) / (max(variance, m (s - m)) / I)^0.5 <= t        (Student's t, I - 1 degrees of freedom)

    where s is `loss_size`. NaN for fewer than two products.
    """
    count = len(values)
    mean = float(values.mean()) if count else float("nan")
    if count < 2:
        return Bound(mean, float("nan"))
    quantile = _quantile(confidence, count - 1)
    by_spread = mean - quantile * float(values.std(ddof=1)) / float(np.sqrt(count))
    share = quantile**2 / count
    size = loss_size(values)
    # Larger root of (mean + m)^2 = share m (s - m). Without a root, the implied variance never decides.
    linear, square = 2 * mean - share * size, 1 + share
    inside = linear**2 - 4 * square * mean**2
    by_loss = -(-linear + float(np.sqrt(inside))) / (2 * square) if inside >= 0 and quantile > 0 else by_spread
    return Bound(mean, max(-LARGEST, min(by_spread, by_loss)))


def loss_size(values: NDArray[np.float64]) -> float:
    """Typical size of a non-zero difference: sum d^2 / sum |d|, with one difference of 1 added; 1 if all are 0."""
    return float((np.square(values).sum() + 1) / (np.abs(values).sum() + 1))


def detectable_gain(of: Spread, products: int, backgrounds: int, confidence: float) -> float:
    """The smallest mean for which `crossed_bound` is above 0 with a probability of `POWER`."""
    variance, freedom = of.mean_squares(products, backgrounds).of_mean()
    return float((_quantile(confidence, freedom) + _quantile(POWER, freedom)) * np.sqrt(variance))


def detectable_loss(deviation: float, size: float, products: int, confidence: float) -> float:
    """The smallest margin that `loss_bound` rules out with a probability of `POWER` if the true mean is 0.

    Args:
        deviation: standard deviation of the differences between products.
        size: typical size of a non-zero difference, see `loss_size`.
    """
    from scipy.optimize import brentq

    quantile, chance = (_quantile(share, products - 1) for share in (confidence, POWER))

    def missing(margin: float) -> float:
        error = np.sqrt(max(deviation**2, margin * (size - margin)) / products)
        return float(margin - quantile * error - chance * deviation / np.sqrt(products))

    return float(brentq(missing, 1e-9, LARGEST)) if missing(LARGEST) > 0 else LARGEST


class Pigeonhole:
    """Pigeonhole bootstrap: products and backgrounds are resampled independently, with replacement (Owen 2007).

    Args:
        products, backgrounds: shape of the table.
        replicates: number of resamples.
        seed: the same seed draws the same resamples.
    """

    def __init__(self, products: int, backgrounds: int, *, replicates: int = 1000, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, 23])
        self._rows, self._columns = (
            rng.multinomial(count, np.full(count, 1 / count), size=replicates) / count
            for count in (products, backgrounds)
        )

    def means(self, table: Table) -> NDArray[np.float64]:
        """The average of a table `(I, B)` in each resample."""
        found: NDArray[np.float64] = ((self._rows @ table) * self._columns).sum(axis=1)
        return found

    def interval(self, table: Table) -> Interval:
        """The average of a table with its 95 % percentile interval."""
        low, high = np.percentile(self.means(table), [2.5, 97.5])
        return Interval(float(table.mean()), float(low), float(high))

    def ratio(self, table: Table, base: NDArray[np.float64]) -> Interval:
        """The average of a table `(I, B)` divided by the average of a base `(I,)` of the same products.

        NaN if the base sums to 0; resamples whose base sums to 0 are ignored.
        """
        below = self._rows @ base
        if not base.sum() > 0:
            return Interval(float("nan"), float("nan"), float("nan"))
        ratios = self.means(table)[below > 0] / below[below > 0]
        low, high = np.percentile(ratios, [2.5, 97.5])
        return Interval(float(table.mean() / base.mean()), float(low), float(high))


def _quantile(share: float, freedom: float) -> float:
    """Quantile of Student's distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


def _freedom(products: int, backgrounds: int) -> tuple[int, int, int]:
    return products - 1, backgrounds - 1, (products - 1) * (backgrounds - 1)


def by_group(values: Table, groups: Sequence[str], axis: int) -> tuple[list[str], Table]:
    """Average the rows (axis 0) or columns (axis 1) of each group; the groups are sorted by name."""
    names, place, counts = np.unique(np.asarray(groups, np.str_), return_inverse=True, return_counts=True)
    moved = np.moveaxis(values, axis, 0)
    sums = np.zeros((len(names), *moved.shape[1:]))
    np.add.at(sums, place, moved)
    sums /= counts.reshape(-1, *[1] * (moved.ndim - 1))
    return names.tolist(), np.moveaxis(sums, 0, axis)
