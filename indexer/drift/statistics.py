"""Drift statistics: whether photos still resemble those of the catalogue that an encoder serves. Arrays only.

Each measure gives every item one value that increases with its distance from the catalogue. Two samples of such values
are compared by rank (`shift_of`). A shift counts as drift if it is significant and large enough to matter
(`flag_drift`). No item is scored by a model that was fitted to it. Otherwise new items would always look less
usual.
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

ALPHA = 0.01  # family-wise error rate of all tests of a run
EFFECT = (
    0.6  # minimum P(new > reference); 0.5 is no difference, 0.6 is a difference of means of 0.36 standard deviations
)
KL_EFFECT = 0.1  # minimum nats above the median of resamples; a shift of 0.45 standard deviations in one direction
MIN_SAMPLE = 20  # with fewer, only gross differences are detectable
FOLDS = 5
MOST_DIMENSIONS = 16
RESAMPLES = 999
BLOCK = 8192  # vectors of the gallery scored at a time
Doubles = NDArray[np.float64]


class Shift(NamedTuple):
    """The shift of a sample's values relative to the reference's.

    `auc` is P(value > reference value), where ties count half. `above` is the share of values above the reference's
    median. `ratio` is the ratio of the medians (None if the reference's is not positive). `p` is one-sided, and
    `adjusted` for all tests of the run.
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
    """KL(recent || reference) in nats between Gaussians, compared with resamples of the reference of the same size.

    `usual` is the median of the resamples, `limit` their 99th percentile, and `p` the share that is at least as large.
    """

    nats: float
    usual: float
    limit: float
    p: float
    dimensions: int
    sample: int

    @property
    def changed(self) -> bool:
        """Whether the distribution has changed: significantly, and by enough to matter."""
        return self.p <= ALPHA and self.nats - self.usual >= KL_EFFECT


def one_photo_each(items: NDArray[np.generic], limit: int, rng: np.random.Generator) -> Ints:
    """Sorted positions of one random photo of each of at most `limit` random items.

    One photo and not the mean: a mean over more photos varies less, which would look like drift.
    """
    order = rng.permutation(len(items))
    _, first = np.unique(items[order], return_index=True)
    return np.sort(rng.permutation(order[first])[:limit]).astype(np.int64)


def nearest_other(queries: Floats, own: Ints, gallery: Floats, items: Ints, metric: Metric) -> Doubles:
    """Distance `(nq,)` to the nearest vector of another item: 1 - cosine, or Euclidean.

    Args:
        own: `(nq,)` item key of each query, -1 if its item is not in the gallery.
        items: `(n,)` item keys of the gallery's vectors.
    """
    best = np.full(len(queries), -np.inf)
    for start in range(0, len(gallery), BLOCK):
        part = slice(start, start + BLOCK)
        scores = exact_scores(queries, gallery[part], metric)
        scores[own[:, None] == items[part][None]] = -np.inf
        best = np.maximum(best, scores.max(axis=1))
    return np.maximum(1.0 - best if metric == "cosine" else -best, 0.0)


class _Density(NamedTuple):
    """A probabilistic PCA: `(k, D)` directions with their variances, and one variance for all other directions."""

    mean: Doubles
    directions: Doubles
    variances: Doubles
    rest: float

    def negative_log(self, x: Doubles) -> Doubles:
        """Negative log-density `(n,)` in nats."""
        centred = x - self.mean
        inside = centred @ self.directions.T
        outside = np.maximum((centred**2).sum(1) - (inside**2).sum(1), 0.0)
        others = x.shape[1] - len(self.variances)
        spread = np.log(2 * np.pi * self.variances).sum() + others * np.log(2 * np.pi * self.rest)
        values: Doubles = 0.5 * (spread + (inside**2 / self.variances).sum(1) + outside / self.rest)
        return values


def surprise(reference: Floats, others: Floats, rng: np.random.Generator) -> tuple[Doubles, Doubles]:
    """Negative log-density of both samples under the reference's density, `(n,)` and `(m,)` in nats.

    The density is a probabilistic PCA (Tipping, Bishop: Probabilistic Principal Component Analysis, 1999,
    https://doi.org/10.1111/1467-9868.00196), because new photos are often near the mean in the directions in which the
    catalogue varies, and far from it in the other directions. It is fitted on all folds of the reference except one,
    and evaluated on that fold and on an equal share of the others, so neither is part of the fit.
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
    """The leading principal directions `(k, D)` and their variances `(k,)`; at most D."""
    centred = x - x.mean(0)
    if x.shape[1] <= len(x):
        values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
        directions = vectors[:, ::-1].T[:count]
    else:  # the Gram matrix of the rows is smaller and has the same eigenvalues
        values, left = np.linalg.eigh(centred @ centred.T / len(x))
        directions = left[:, ::-1].T[:count] @ centred
        directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-300)
    return directions, np.maximum(values[::-1][: len(directions)], 0.0)


def shrunk_covariance(x: Doubles) -> Doubles:
    """Covariance `(d, d)` of `(n, d)`, shrunk towards a multiple of the identity.

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
    """Test whether the distribution of vectors differs from the reference's.

    The aggregate posterior (Hoffman, Johnson: ELBO surgery, 2016) is approximated by a Gaussian over the leading
    principal components, as many as the samples support. A third of the reference determines the components and is not
    used further, because a sample has more variance along its own components than any other sample. The null
    distribution comes from random splits of the other two thirds into a sample of the others' size and the rest; if
    there are too many others, a random part of them is used.
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
    """Compare two samples with the Mann-Whitney test (1947); `adjusted` and `drifted` are set by `flag_drift`."""
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


def flag_drift(shifts: Mapping[str, Shift]) -> dict[str, Shift]:
    """Adjust the p-values for all shifts together, and flag those that are significant and large enough."""
    adjusted = holm({name: shift.p for name, shift in shifts.items()})
    return {
        name: shift._replace(adjusted=adjusted[name], drifted=adjusted[name] <= ALPHA and shift.auc >= EFFECT)
        for name, shift in shifts.items()
    }
