"""A Gaussian of vectors, with a covariance that is regular for few vectors of many dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
MAX_AXES = 256  # principal axes kept; all further directions share one variance
LEAST = 1e-6  # least variance of a direction, as a share of the mean variance


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian of vectors `(n, d)`.

    Args:
        mean: `(d,)`.
        axes: `(d, r)`, orthonormal principal axes.
        variances: `(r,)` along them, above 0.
        rest: variance of every direction orthogonal to the axes, above 0.
    """

    mean: Numbers
    axes: Numbers
    variances: Numbers
    rest: float

    def squared_distances(self, vectors: NDArray[np.floating]) -> Numbers:
        """Squared Mahalanobis distances `(n,)` of vectors `(n, d)` from the mean."""
        centred = np.asarray(vectors, np.float64) - self.mean
        along = np.square(centred @ self.axes)
        beyond = np.maximum(np.square(centred).sum(axis=1) - along.sum(axis=1), 0.0)
        found: Numbers = along @ (1 / self.variances) + beyond / self.rest
        return found


def fit_gaussian(vectors: NDArray[np.floating], *, max_axes: int = MAX_AXES) -> Gaussian:
    """Fit mean and covariance to vectors `(n, d)`.

    The covariance is (1 - a) S + a m I, where S is the sample covariance, m the mean of its eigenvalues, and a the
    estimate of the best share by Ledoit, Wolf: A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices,
    2004, https://doi.org/10.1016/S0047-259X(03)00096-4, section 3.

    Raises:
        ValueError: all vectors are equal.
    """
    vectors = np.asarray(vectors, np.float64)
    count, dim = vectors.shape
    mean = vectors.mean(axis=0)
    centred = vectors - mean
    _, singular, transposed = np.linalg.svd(centred, full_matrices=False)
    found = np.square(singular) / count  # eigenvalues of S, largest first
    average = float(found.sum()) / dim
    if average <= np.finfo(np.float32).eps ** 2 * max(float(np.square(mean).mean()), np.finfo(np.float64).tiny):
        raise ValueError("all vectors are equal")
    gap = float(np.square(found).sum()) - dim * average**2  # squared norm of S - m I
    spread = float(np.square(np.square(centred).sum(axis=1)).mean() - np.square(found).sum()) / count
    share = min(max(spread / gap, 0.0), 1.0) if gap > 0 else 1.0
    kept = min(max_axes, len(found))
    shrunk = (1 - share) * found[:kept] + share * average
    others = (1 - share) * float(found[kept:].sum()) / max(dim - kept, 1) + share * average
    least = LEAST * average
    return Gaussian(mean, transposed[:kept].T.copy(), np.maximum(shrunk, least), max(others, least))
