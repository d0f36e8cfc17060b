"""Share of the vectors' variance by factor: variance components of a crossed design, with intervals over items.

A vector z of an item on a background (and in a pose, in a light) is modelled as the sum of independent effects of the
factors and of their combinations, z = m + a_item + b_background + (ab) + ..., each with its own variance, summed over
the vector's components. If C(S) is the mean inner product of two vectors that agree in exactly the factors S, then
    E C(S) = |m|^2 + the variances of all effects whose factors are in S,
so the variance of factor f is C(f) - C(none), and the total variance is C(all) - C(none) (Koch: Some Further Remarks
Concerning "A General Approach to the Estimation of Variance Components", Technometrics 10, 1968,
https://doi.org/10.1080/00401706.1968.10490601). In a complete design these are the moment estimates of the
random-effects analysis of variance (Searle, Casella, McCulloch: Variance Components, 1992, chapter 4), which are
unbiased for any number of backgrounds. The sums of squares explained by a factor are biased: with five backgrounds, a
true item share of one half is estimated as .60.

Negative estimates count as 0. Intervals are percentiles over resampled items, without the inner products of an item
with its own copies. They describe these backgrounds and do not generalise to others.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from indexer.measures.intervals import TAILS, exact_interval
from indexer.measures.metrics import NO_INTERVAL, Interval

Numbers = NDArray[np.float64]
INTERACTION = "interaction"
ROUNDING = 1e-12  # variances below this share of the mean squared norm are rounding errors of float32


def variance_shares(
    z: NDArray[np.floating], factors: Sequence[str], *, replicates: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """The share of each factor in the total variance; combinations of factors are summed as `interaction`.

    Args:
        z: `(items, n_2, ..., n_k, dim)`, one vector for every combination of the factors' values.
        factors: names of the k axes; the first is the items, over which the intervals are.

    All shares are NaN if the vectors only differ by rounding errors.

    Raises:
        ValueError: the axes do not match the names, or one has a single value.
    """
    if z.ndim != len(factors) + 1 or min(z.shape[:-1]) < 2:
        raise ValueError(
            f"vectors of shape {z.shape} need an axis with two or more values for each of {', '.join(factors)}"
        )
    items = z.shape[0]
    drawn = np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), size=replicates)
    weights: Numbers = np.concatenate([np.ones((1, items)), drawn])  # the first row is the original sample
    length = np.square(z, dtype=np.float64).sum(axis=-1).mean()
    centred: Numbers = z - z.mean(
        axis=tuple(range(len(factors))), dtype=np.float64
    )  # keeps precision if the mean is large
    others = tuple(range(1, len(factors)))
    apart, within = _agreeing(centred, others, ())
    nothing = _between(apart, weights)
    total = (weights @ _agreeing(centred, others, others)[1]) / items - nothing
    components = {factors[0]: (weights @ within) / items - nothing}
    for axis in others:
        components[factors[axis]] = _between(_agreeing(centred, others, (axis,))[0], weights) - nothing
    components[INTERACTION] = total - sum(components.values())
    is_constant = np.square(centred).sum(axis=-1).mean() <= ROUNDING * length
    return _shares(components, bool(is_constant), items)


def _agreeing(z: Numbers, others: Sequence[int], same: tuple[int, ...]) -> tuple[Numbers, Numbers]:
    """Mean inner products `(items, items)` of vectors that agree in exactly `same` of `others`; and their diagonal.

    Inclusion and exclusion: pairs that agree in at least some axes are pairs of sums over the remaining axes.
    """
    sizes = {axis: z.shape[axis] for axis in others}
    free = [axis for axis in others if axis not in same]
    products = np.zeros((len(z), len(z)))
    for more in range(len(free) + 1):
        for added in combinations(free, more):
            summed = z.sum(axis=tuple(axis for axis in free if axis not in added)) if more < len(free) else z
            flat = summed.reshape(len(z), -1)
            products += (-1.0) ** more * (flat @ flat.T)
    pairs = np.prod([float(size) for size in sizes.values()]) * np.prod([sizes[axis] - 1.0 for axis in free])
    products /= pairs
    return products, np.diagonal(products)


def _between(products: Numbers, weights: Numbers) -> Numbers:
    """Mean inner product of two different items in each resample `(replicates,)`; NaN if it contains only one item."""
    own, squares = np.diagonal(products), np.square(weights)
    pairs = np.square(weights.sum(axis=1)) - squares.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Numbers = (np.einsum("ri,ri->r", weights @ products, weights) - squares @ own) / pairs
    return means


def _shares(components: dict[str, Numbers], is_constant: bool, items: int) -> dict[str, Interval]:
    """Shares in the sum of the components, negative ones counted as 0; the first value is of the original sample."""
    above = {name: np.maximum(values, 0.0) for name, values in components.items()}
    whole = np.sum(list(above.values()), axis=0)
    if is_constant or not whole[0] > 0:
        return dict.fromkeys(components, NO_INTERVAL)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: _interval(values / whole, items) for name, values in above.items()}


def _interval(shares: Numbers, items: int) -> Interval:
    """The first share with percentiles of the others; the exact interval if all resamples agree."""
    value = float(np.clip(shares[0], 0.0, 1.0))
    low, high = np.nanpercentile(shares[1:], [100 * tail for tail in TAILS])
    if high - low < ROUNDING:
        low, high = exact_interval(value, items)
    return Interval(value, float(low), float(high))
