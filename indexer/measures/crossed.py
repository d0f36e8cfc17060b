"""Means over products and backgrounds, both drawn at random: their spread, a bound, an interval, what can be detected.

A figure x(i, b) of product i on background b is modelled as crossed random effects (Cornfield and Tukey: Average Values
of Mean Squares in Factorials, 1956, https://doi.org/10.1214/aoms/1177728067):

    x(i, b) = mean + product_i + background_b + interaction_ib

With the mean squares MS_I, MS_B and MS_IB of the two-way table of I products and B backgrounds, the variance of the
average is estimated by

    V = max(MS_I + MS_B - MS_IB, MS_I, MS_B) / (I B)

and the one-sided bound is mean - t V^0.5, with t of Student's distribution for Satterthwaite's degrees of freedom (An
Approximate Distribution of Estimates of Variance Components, 1946, https://doi.org/10.2307/3002019). Resampling the
products alone, as if the B backgrounds were all there are, leaves MS_B out.

The interval for display is the pigeonhole bootstrap's, which resamples products and backgrounds (Owen: The pigeonhole
bootstrap, 2007, https://doi.org/10.1214/07-AOAS122). It weighs the interaction three times; see docs/studies/gate.md
for the error rates of both, and why the gate takes the first.

Differs from the papers: the first estimate of V is unbiased but may fall below what one axis alone gives, or below 0;
the maximum keeps it from that, and is a little too large where there is nothing but interaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.measures.metrics import Interval

Table = NDArray[np.float64]
POWER = 0.8
LARGEST = 1.0  # of a difference of MAP@R or of a share


class MeanSquares(NamedTuple):
    """The two-way analysis of variance of a table, and its degrees of freedom."""

    products: float
    backgrounds: float
    interaction: float
    freedom: tuple[int, int, int]

    def of_mean(self) -> tuple[float, float]:
        """The variance of the average, and Satterthwaite's degrees of freedom for it (1 or more)."""
        first, second, both = self.freedom
        cells = (first + 1) * (second + 1)
        total = max(self.products + self.backgrounds - self.interaction, self.products, self.backgrounds)
        parts = self.products**2 / first + self.backgrounds**2 / second + self.interaction**2 / both
        return total / cells, max(1.0, total**2 / parts) if parts > 0 else 1.0


class Spread(NamedTuple):
    """Standard deviations of the effects of products, of backgrounds and of both together."""

    product: float
    background: float
    interaction: float

    def mean_squares(self, products: int, backgrounds: int) -> MeanSquares:
        """What a table of this spread has on average."""
        both = self.interaction**2
        return MeanSquares(
            both + backgrounds * self.product**2,
            both + products * self.background**2,
            both,
            _freedom(products, backgrounds),
        )


class Bound(NamedTuple):
    """An average and what the mean is above with the confidence asked for; NaN where nothing can be told."""

    mean: float
    low: float


def mean_squares(table: Table) -> MeanSquares:
    """Of a table `(I, B)` without gaps, two or more of each."""
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
    """The standard deviations that a table's mean squares speak for (Cornfield and Tukey), 0 where they are below."""
    products, backgrounds = table.shape
    squares = mean_squares(table)
    return Spread(
        float(np.sqrt(max(0.0, squares.products - squares.interaction) / backgrounds)),
        float(np.sqrt(max(0.0, squares.backgrounds - squares.interaction) / products)),
        float(np.sqrt(squares.interaction)),
    )


def crossed_bound(table: Table, confidence: float) -> Bound:
    """What the mean over all products and all backgrounds is above, by a table `(I, B)` of some of each.

    NaN for fewer than two products or two backgrounds: then nothing tells how far others may be.
    """
    mean = float(table.mean()) if table.size else float("nan")
    if min(table.shape) < 2:
        return Bound(mean, float("nan"))
    variance, freedom = mean_squares(table).of_mean()
    return Bound(mean, mean - _quantile(confidence, freedom) * float(np.sqrt(variance)))


def loss_bound(values: NDArray[np.float64], confidence: float) -> Bound:
    """What the mean of differences `(I,)` in [-1, 1] is above, honest where most of them are 0.

    Twenty differences of 0 have no spread, and yet one product in ten may be lost by a candidate. So, as in Tango's
    score test for paired proportions (Equivalence test and confidence interval for the difference in proportions,
    1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C891::AID-SIM780%3E3.0.CO;2-B), a loss of m is
    judged by the variance that it would have itself: a mean of -m, of losses that are s where there is one, has at
    least m (s - m). The bound is the smallest -m with

        (mean + m) / (max(variance, m (s - m)) / I)^0.5 <= t        (Student's, I - 1 degrees of freedom)

    s is the size of a difference weighted by its size, with one difference of 1 added: 1 where all are 0.

    NaN for fewer than two products.
    """
    count = len(values)
    mean = float(values.mean()) if count else float("nan")
    if count < 2:
        return Bound(mean, float("nan"))
    quantile = _quantile(confidence, count - 1)
    by_spread = mean - quantile * float(values.std(ddof=1)) / float(np.sqrt(count))
    share = quantile**2 / count
    size = loss_size(values)
    # (mean + m)^2 = share m (s - m), the larger root: where there is none the variance of a loss is never too large.
    linear, square = 2 * mean - share * size, 1 + share
    inside = linear**2 - 4 * square * mean**2
    by_loss = -(-linear + float(np.sqrt(inside))) / (2 * square) if inside >= 0 and quantile > 0 else by_spread
    return Bound(mean, max(-LARGEST, min(by_spread, by_loss)))


def loss_size(values: NDArray[np.float64]) -> float:
    """How large a difference is where there is one: sum of d^2 over sum of |d|, with one of size 1 added."""
    return float((np.square(values).sum() + 1) / (np.abs(values).sum() + 1))


def detectable_gain(of: Spread, products: int, backgrounds: int, confidence: float, power: float = POWER) -> float:
    """The smallest mean that `crossed_bound` is above 0 for, as often as `power` says."""
    variance, freedom = of.mean_squares(products, backgrounds).of_mean()
    return float((_quantile(confidence, freedom) + _quantile(power, freedom)) * np.sqrt(variance))


def detectable_loss(deviation: float, size: float, products: int, confidence: float, power: float = POWER) -> float:
    """The smallest margin within which `loss_bound` finds differences without a mean, as often as `power` says.

    Args:
        deviation: of the differences between products.
        size: of a difference where there is one, as `loss_size` has it.
    """
    from scipy.optimize import brentq

    quantile, chance = (_quantile(share, products - 1) for share in (confidence, power))

    def missing(margin: float) -> float:
        judged_by = np.sqrt(max(deviation**2, margin * (size - margin)) / products)
        return float(margin - quantile * judged_by - chance * deviation / np.sqrt(products))

    return float(brentq(missing, 1e-9, LARGEST)) if missing(LARGEST) > 0 else LARGEST


class Pigeonhole:
    """Resampling of products and of backgrounds, each with replacement and apart from the other (Owen 2007).

    Args:
        products, backgrounds: how many of each a table has.
        replicates: how many resamples.
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
        """The average of a table `(I, B)` over that of `(I,)` of the same products, and its interval.

        Without a value where the base is 0; resamples whose base is 0 take no part.
        """
        below = self._rows @ base
        if not base.sum() > 0:
            return Interval(float("nan"), float("nan"), float("nan"))
        ratios = self.means(table)[below > 0] / below[below > 0]
        low, high = np.percentile(ratios, [2.5, 97.5])
        return Interval(float(table.mean() / base.mean()), float(low), float(high))


def _quantile(share: float, freedom: float) -> float:
    """Of Student's distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


def _freedom(products: int, backgrounds: int) -> tuple[int, int, int]:
    return products - 1, backgrounds - 1, (products - 1) * (backgrounds - 1)


def by_group(values: Table, groups: Sequence[str], axis: int) -> tuple[list[str], Table]:
    """Averages of rows (axis 0) or columns (axis 1) of one group, in the order of the groups' names."""
    names, place, counts = np.unique(np.asarray(groups, np.str_), return_inverse=True, return_counts=True)
    moved = np.moveaxis(values, axis, 0)
    sums = np.zeros((len(names), *moved.shape[1:]))
    np.add.at(sums, place, moved)
    sums /= counts.reshape(-1, *[1] * (moved.ndim - 1))
    return names.tolist(), np.moveaxis(sums, 0, axis)
