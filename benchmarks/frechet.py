"""The Frechet distance between two sets of features, each taken as a Gaussian.

Heusel et al.: GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, 2017,
https://arxiv.org/abs/1706.08500, equation 6: d^2 = |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)). Differs from the paper:
the features are search vectors of an encoder of this project, so distances compare with each other alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def frechet_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """The squared distance of features `(n, d)` and `(m, d)`; tr (C C')^(1/2) = tr (C^(1/2) C' C^(1/2))^(1/2)."""
    one, two = (np.asarray(values, np.float64) for values in (first, second))
    covariances = [np.atleast_2d(np.cov(values.T)) for values in (one, two)]
    values, axes = np.linalg.eigh(covariances[0])
    root = (axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T
    shared = np.linalg.eigvalsh(root @ covariances[1] @ root)
    means = float(np.square(one.mean(axis=0) - two.mean(axis=0)).sum())
    traces = sum(float(np.trace(each)) for each in covariances)
    return means + traces - 2.0 * float(np.sqrt(np.maximum(shared, 0.0)).sum())
