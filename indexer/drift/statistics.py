"""Drift: whether photos are still like those of the catalogue that an encoder serves. Statistics over arrays alone.

Each measure gives every item one value that grows as it gets less like the catalogue. Two samples of such values are
compared by rank (`shift_of`); a shift counts where it is beyond chance and large enough to matter (`judge`). The values
of the reference are out of sample, as those of what is compared with it are, so a resampled catalogue gives none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from indexer.measures.significance import holm
from indexer.vectors import Floats, Ints
from indexer.vectors.exact import exact_scores
from training.reference import Metric

ALPHA = 0.01  # of all tests of one run together
EFFECT = 0.6  # least P(new > reference): half means no difference, 0.6 is two means 0.36 standard deviations apart
KL_EFFECT = 0.1  # nats above what resamples give: two means 0.45 standard deviations apart in one direction
MIN_SAMPLE = 20  # below that only gross differences could be seen, and the catalogue's own values vary too much
FOLDS = 5
MOST_DIMENSIONS = 16
RESAMPLES = 999
BLOCK = 8192  # vectors of the gallery scored at a time
Doubles = NDArray[np.float64]


class Shift(NamedTuple):
    """How a sample's values lie to the reference's.

    `auc` is P(value > reference value), ties half; `above` the share of values over the reference's median; `ratio`
    that of the medians (None where the reference's is not positive). `p` is one-sided, `adjusted` for the whole run.
    """

    median: float
    reference_median: float
    ratio: float | None
    auc: float
    above: float
    p: float
    adjusted: float
    drifted: bool


class KlTest(NamedTuple):
    """KL(recent || reference) in nats between Gaussians, beside what resamples of the reference of its size give.

    `usual` is their median and `limit` their 99th percentile, `p` the share that is as large.
    """

    nats: float
    usual: float
    limit: float
    p: float
    dimensions: int
    sample: int

    @property
    def changed(self) -> bool:
        """Whether the mix is another: beyond chance, and by enough to matter."""
        return self.p <= ALPHA and self.nats - self.usual >= KL_EFFECT


def one_photo_each(items: NDArray[np.generic], limit: int, rng: np.random.Generator) -> Ints:
    """Positions of one photo, by chance, of each of at most `limit` items, also by chance; in order.

    Means over an item's photos would vary less where it has more of them, and that is no drift.
    """
    order = rng.permutation(len(items))
    _, first = np.unique(items[order], return_index=True)
    return np.sort(rng.permutation(order[first])[:limit]).astype(np.int64)


def nearest_other(queries: Floats, own: Ints, gallery: Floats, items: Ints, metric: Metric) -> Doubles:
    """Distance `(nq,)` to the nearest vector of another item: 1 - cosine, or Euclidean.

    Args:
        own: `(nq,)` key of the item that a query is of, -1 where the gallery has none of it.
        items: `(n,)` keys of the gallery's vectors.
    """
    best = np.full(len(queries), -np.inf)
    for start in range(0, len(gallery), BLOCK):
        part = slice(start, start + BLOCK)
        scores = exact_scores(queries, gallery[part], metric)
        scores[own[:, None] == items[part][None]] = -np.inf
        best = np.maximum(best, scores.max(axis=1))
    return np.maximum(1.0 - best if metric == "cosine" else -best, 0.0)


class _Density(NamedTuple):
    """A probabilistic PCA: `(k, D)` directions with their variances, and one variance in all others."""

    mean: Doubles
    directions: Doubles
    variances: Doubles
    rest: float

    def negative_log(self, x: Doubles) -> Doubles:
        """Nats `(n,)`."""
        centred = x - self.mean
        inside = centred @ self.directions.T
        outside = np.maximum((centred**2).sum(1) - (inside**2).sum(1), 0.0)
        others = x.shape[1] - len(self.variances)
        spread = np.log(2 * np.pi * self.variances).sum() + others * np.log(2 * np.pi * self.rest)
        values: Doubles = 0.5 * (spread + (inside**2 / self.variances).sum(1) + outside / self.rest)
        return values


def surprise(reference: Floats, others: Floats, rng: np.random.Generator) -> tuple[Doubles, Doubles]:
    """Negative log-density in nats of both samples under the reference's density, `(n,)` and `(m,)`.

    The density is a probabilistic PCA (Tipping, Bishop: Probabilistic Principal Component Analysis, 1999,
    https://doi.org/10.1111/1467-9868.00196): what is new often lies near the mean of the directions in which the
    catalogue varies, and apart from it in the others. It is fitted on all folds of the reference but one; that
    fold and an equal share of the others are judged by it, so neither has been seen by what judges it.
    """
    folds, of_others = (rng.permutation(np.arange(len(x)) % FOLDS) for x in (reference, others))
    values, other_values = np.empty(len(reference)), np.empty(len(others))
    for fold in range(FOLDS):
        density = _fit_density(reference[folds != fold].astype(np.float64))
        values[folds == fold] = density.negative_log(reference[folds == fold])
        other_values[of_others == fold] = density.negative_log(others[of_others == fold])
    return values, other_values


def _fit_density(x: Doubles) -> _Density:
    mean, (directions, variances) = x.mean(0), _principal(x, min(MOST_DIMENSIONS, max(2, len(x) // 10)))
    total, least = float(x.var(0).sum()), 1e-12 + 1e-6 * float(variances.max(initial=0.0))
    rest = (total - float(variances.sum())) / max(1, x.shape[1] - len(variances))
    return _Density(mean, directions, np.maximum(variances, least), max(rest, least))


def _principal(x: Doubles, count: int) -> tuple[Doubles, Doubles]:
    """The leading directions `(k, D)` and the variances along them `(k,)`; fewer where D is."""
    centred = x - x.mean(0)
    if x.shape[1] <= len(x):
        values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
        directions = vectors[:, ::-1].T[:count]
    else:  # the other Gram matrix is smaller and has the same eigenvalues
        values, left = np.linalg.eigh(centred @ centred.T / len(x))
        directions = left[:, ::-1].T[:count] @ centred
        directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-300)
    return directions, np.maximum(values[::-1][: len(directions)], 0.0)


def shrunk_covariance(x: Doubles) -> Doubles:
    """Covariance `(d, d)` of `(n, d)`, drawn towards a multiple of the identity.

    Ledoit, Wolf: A well-conditioned estimator for large-dimensional covariance matrices, 2004,
    https://doi.org/10.1016/S0047-259X(03)00096-4, equation 14.
    """
    n, d = x.shape
    centred = x - x.mean(0)
    covariance = centred.T @ centred / n
    mean = float(np.trace(covariance)) / d
    distance = float((covariance**2).sum()) / d - mean**2
    noise = (float((centred**2).sum(1) @ (centred**2).sum(1)) / n - float((covariance**2).sum())) / (n * d)
    weight = min(1.0, noise / distance) if distance > 0 else 1.0
    shrunk: Doubles = (1 - weight) * covariance + weight * mean * np.eye(d)
    return shrunk


def gaussian_kl(mean: Doubles, covariance: Doubles, other_mean: Doubles, other_covariance: Doubles) -> float:
    """KL(N || N_other) in nats: (tr(S_o^-1 S) + (m_o - m)' S_o^-1 (m_o - m) - d + log det S_o / det S) / 2."""
    apart = other_mean - mean
    traces = float(np.trace(np.linalg.solve(other_covariance, covariance)))
    far = float(apart @ np.linalg.solve(other_covariance, apart))
    logs = float(np.linalg.slogdet(other_covariance)[1] - np.linalg.slogdet(covariance)[1])
    return 0.5 * (traces + far - len(mean) + logs)


def kl_test(reference: Floats, others: Floats, rng: np.random.Generator, resamples: int = RESAMPLES) -> KlTest:
    """Whether the aggregate of vectors is another than the reference's.

    The aggregate posterior (Hoffman, Johnson: ELBO surgery, 2016) stands as a Gaussian over leading principal
    components, as many as the samples can carry. A third of the reference gives the components, for along them whatever
    they were chosen on varies more than anything else. The null distribution comes from splitting the other two thirds
    by chance into a sample of the others' size and the rest; of others that are too many for that a part is taken.
    """
    order = rng.permutation(len(reference))
    chosen_on, x = np.split(reference[order].astype(np.float64), [len(reference) // 3])
    size = min(len(others), len(x) // 2)
    wanted = min(MOST_DIMENSIONS, max(2, min(len(chosen_on) // 5, size // 3)))
    directions, variances = _principal(chosen_on, wanted)
    scale = directions.T / np.sqrt(np.maximum(variances, 1e-12 + 1e-6 * variances.max()))
    known, recent = (x - chosen_on.mean(0)) @ scale, (others - chosen_on.mean(0)) @ scale
    nats = _kl_of(rng.permutation(recent)[:size], rng.permutation(known)[size:])
    null = np.empty(resamples)
    for place in range(resamples):
        shuffled = rng.permutation(known)
        null[place] = _kl_of(shuffled[:size], shuffled[size:])
    p = (1 + int((null >= nats).sum())) / (resamples + 1)
    return KlTest(nats, float(np.median(null)), float(np.quantile(null, 0.99)), p, len(directions), size)


def _kl_of(sample: Doubles, other: Doubles) -> float:
    return gaussian_kl(sample.mean(0), shrunk_covariance(sample), other.mean(0), shrunk_covariance(other))


def shift_of(reference: Doubles, values: Doubles) -> Shift:
    """Two samples set side by side; the test is that of Mann and Whitney (1947). Not judged yet."""
    test = mannwhitneyu(values, reference, alternative="greater")
    usual, median = float(np.median(reference)), float(np.median(values))
    return Shift(
        median=median,
        reference_median=usual,
        ratio=median / usual if usual > 0 else None,
        auc=float(test.statistic) / (len(values) * len(reference)),
        above=float((values > usual).mean()),
        p=float(test.pvalue),
        adjusted=float("nan"),
        drifted=False,
    )


def judge(shifts: Mapping[str, Shift]) -> dict[str, Shift]:
    """The same with p-values adjusted for all of them, and whether each is both beyond chance and large."""
    adjusted = holm({name: shift.p for name, shift in shifts.items()})
    return {
        name: shift._replace(adjusted=adjusted[name], drifted=adjusted[name] <= ALPHA and shift.auc >= EFFECT)
        for name, shift in shifts.items()
    }
