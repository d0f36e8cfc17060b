"""Shares of the vectors' variation by factor: variance components of a crossed design, with intervals over items.

Every vector z of an item on a background (and in a pose, in a light) is taken as the sum of independent effects of the
factors and of their combinations, z = m + a_item + b_background + (ab) + ..., each with a variance of its own, summed
over the vector's numbers. With C(S) the mean inner product of two vectors that agree in the factors S and in no other,
    E C(S) = |m|^2 + the variances of all effects whose factors are in S,
so the variance of factor f is C(f) - C(none), and that of everything is C(all) - C(none) (Koch: Some Further Remarks
Concerning "A General Approach to the Estimation of Variance Components", Technometrics 10, 1968,
https://doi.org/10.1080/00401706.1968.10490601). In a complete design these are the moment estimates of the random
effects' analysis of variance (Searle, Casella, McCulloch: Variance Components, 1992, chapter 4): without bias,
whatever the number of backgrounds. The sums of squares that a factor explains are not: of five backgrounds a true
share of a half of the items comes out as .60.

A negative estimate counts as 0. Intervals are percentiles over resampled items, inner products of an item with itself
left out of those between items; they are of these backgrounds, not of others.
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
ROUNDING = 1e-12  # share of the vectors' mean squared length: what differs by less is the same in single precision


def variance_shares(
    z: NDArray[np.floating], factors: Sequence[str], *, replicates: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """The share of each factor's variance in that of all effects; what combinations of factors add is `interaction`.

    Args:
        z: `(items, n_2, ..., n_k, dim)`, one vector for every combination of the factors' values.
        factors: names of the k axes, the items' first; intervals are over items.

    All is NaN where the vectors do not differ but by rounding.

    Raises:
        ValueError: the axes do not match the names, or one has a single value.
    """
    if z.ndim != len(factors) + 1 or min(z.shape[:-1]) < 2:
        raise ValueError(f"vectors {z.shape} need an axis of two or more values for each of {', '.join(factors)}")
    items = z.shape[0]
    drawn = np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), size=replicates)
    weights: Numbers = np.concatenate([np.ones((1, items)), drawn])  # the items as they are come first
    length = np.square(z, dtype=np.float64).sum(axis=-1).mean()
    centred: Numbers = z - z.mean(axis=tuple(range(len(factors))), dtype=np.float64)  # or what differs would be lost
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
    """Mean inner products `(items, items)` of vectors that agree in just the axes `same` of the others; the diagonal.

    Pairs that agree in at least some axes are pairs of sums over all others; those that agree in more are taken away.
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
    """The mean product of two different items in each resample `(replicates,)`; NaN where it has a single one."""
    own, squares = np.diagonal(products), np.square(weights)
    pairs = np.square(weights.sum(axis=1)) - squares.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Numbers = (np.einsum("ri,ri->r", weights @ products, weights) - squares @ own) / pairs
    return means


def _shares(components: dict[str, Numbers], is_constant: bool, items: int) -> dict[str, Interval]:
    """Parts of the sum of what is above 0, the first of each being of the items as they are."""
    above = {name: np.maximum(values, 0.0) for name, values in components.items()}
    whole = np.sum(list(above.values()), axis=0)
    if is_constant or not whole[0] > 0:
        return dict.fromkeys(components, NO_INTERVAL)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: _interval(values / whole, items) for name, values in above.items()}


def _interval(shares: Numbers, items: int) -> Interval:
    """The first share with percentiles of the others; where all agree, how far so few items can tell."""
    value = float(np.clip(shares[0], 0.0, 1.0))
    low, high = np.nanpercentile(shares[1:], [100 * tail for tail in TAILS])
    if high - low < ROUNDING:
        low, high = exact_interval(value, items)
    return Interval(value, float(low), float(high))
