"""From similarity scores to the probability that two photos show the same product, and how far that is to be believed.

Everything here is a pure function of arrays: `scores` `(n,)` float, larger is more similar; `labels` `(n,)` bool,
whether the pair is of one product; `groups` `(n,)` int, the product of the pair's query, whose pairs are never parted.

- Logistic: P(same | s) = 1 / (1 + exp(-(a s + b))) (Platt: Probabilistic Outputs for Support Vector Machines and
  Comparisons to Regularized Likelihood Methods, 1999, section 2.2), here with a >= 0.
- Isotonic: the rising step function of least squares (Zadrozny, Elkan: Transforming Classifier Scores into Accurate
  Multiclass Probability Estimates, 2002, https://doi.org/10.1145/775047.775151), joined up linearly.
- ECE = sum over bins m of |B_m| / n |share of positives in B_m - mean probability in B_m| (Naeini, Cooper, Hauskrecht:
  Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015; Guo et al.: On Calibration of Modern Neural
  Networks, 2017, equation 3, https://arxiv.org/abs/1706.04599), over bins with as many pairs each.

Both curves are fitted to Platt's targets, (N+ + 1) / (N+ + 2) for the N+ pairs of one product and 1 / (N- + 2) for
the N- others, as a uniform prior has it: no probability is 0 or 1, and few pairs claim less than many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # every search imports this module, and needs but the curve
    from indexer.evaluate.metrics import Interval

Numbers = NDArray[np.float64]
Labels = NDArray[np.bool_]
Groups = NDArray[np.int64]
Kind = Literal["isotonic", "logistic"]

BINS = 15  # of the ECE, as Guo et al. 2017 take them, but equal in pairs rather than in width
FOLDS = 5
REPLICATES = 1000
LOGISTIC_KNOTS = 257  # at even steps of the log-odds: straight lines between them miss the curve by less than 0.0002
NEWTON_STEPS = 50
SETTLED = 1e-10


@dataclass(frozen=True)
class Curve:
    """A rising, piecewise linear map from score to probability, level beyond its first and last knot.

    Args:
        kind: how it was fitted.
        knots: (score, probability) pairs, scores rising, probabilities never falling and inside (0, 1).
    """

    kind: Kind
    knots: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        scores, probabilities = np.array(self.knots, dtype=np.float64).reshape(-1, 2).T
        inside = bool(((probabilities > 0) & (probabilities < 1)).all())
        rising = bool((np.diff(scores) > 0).all() and (np.diff(probabilities) >= 0).all())
        if not (len(scores) and inside and rising and np.isfinite(scores).all()):
            raise ValueError("knots must rise in score, never fall in probability, and stay between 0 and 1")

    def __call__(self, scores: Numbers) -> Numbers:
        """Probabilities `(n,)` of scores `(n,)`."""
        at, probabilities = np.array(self.knots, dtype=np.float64).T
        found: Numbers = np.interp(np.asarray(scores, dtype=np.float64), at, probabilities)
        return found


class Bin(NamedTuple):
    """A point of the reliability curve: mean probability, share that was of one product, number of pairs."""

    probability: float
    share: float
    pairs: int


def fit(scores: Numbers, labels: Labels, groups: Groups, *, seed: int = 0) -> Curve:
    """The kind of curve with the smaller log loss on held-out groups, fitted to all pairs."""

    def loss(alone: Callable[[Numbers, Labels], Curve]) -> float:
        return log_loss(_cross_fitted(lambda s, y, g: alone(s, y), scores, labels, groups, seed), labels)

    return min((fit_logistic, fit_isotonic), key=loss)(scores, labels)


def cross_fit(scores: Numbers, labels: Labels, groups: Groups, *, seed: int = 0) -> Numbers:
    """Probabilities `(n,)`, each by a curve whose fitting and choice have not seen the pair's group."""
    return _cross_fitted(lambda s, y, g: fit(s, y, g, seed=seed + 1), scores, labels, groups, seed)


def fit_logistic(scores: Numbers, labels: Labels) -> Curve:
    """Platt's logistic curve, by Newton's method on standardised scores."""
    targets, (low, high) = _targets(labels)
    mean, spread = float(scores.mean()), float(scores.std())
    slope, intercept = _newton((scores - mean) / (spread or 1.0), targets)
    reach = np.log(high / (1 - high)) - np.log(low / (1 - low))
    if not spread or slope < 1e-3 * reach:  # no rise worth the name within the scores
        return Curve("logistic", ((mean, float(targets.mean())),))
    odds = np.linspace(np.log(low / (1 - low)), np.log(high / (1 - high)), LOGISTIC_KNOTS)
    return _curve("logistic", mean + spread * (odds - intercept) / slope, _sigmoid(odds))


def fit_isotonic(scores: Numbers, labels: Labels) -> Curve:
    """Isotonic regression on Platt's targets."""
    from sklearn.isotonic import IsotonicRegression

    targets, _ = _targets(labels)
    fitted = IsotonicRegression(increasing=True, out_of_bounds="clip").fit(scores, targets)
    return _curve("isotonic", fitted.X_thresholds_, fitted.y_thresholds_)


def folds(groups: Groups, count: int = FOLDS, *, seed: int = 0) -> NDArray[np.int64]:
    """A fold `(n,)` for each pair, the same for all pairs of a group; folds have as many groups, up to one."""
    names, group = np.unique(groups, return_inverse=True)
    fold_of = np.random.default_rng(seed).permutation(len(names)) % count
    found: NDArray[np.int64] = fold_of[group]
    return found


def log_loss(probabilities: Numbers, labels: Labels) -> float:
    """Mean negative log-likelihood in nats a pair."""
    return float(-np.log(np.where(labels, probabilities, 1 - probabilities)).mean())


def brier(probabilities: Numbers, labels: Labels) -> float:
    """Mean squared error (Brier: Verification of Forecasts Expressed in Terms of Probability, 1950)."""
    return float(np.square(probabilities - labels).mean())


def equal_mass_bins(probabilities: Numbers, bins: int = BINS) -> NDArray[np.int64]:
    """The bin `(n,)` of each probability, by its mean rank: as many pairs in each, but equals are never parted."""
    _, group, counts = np.unique(np.round(probabilities, 9), return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - counts + (counts - 1) / 2
    found: NDArray[np.int64] = (mean_rank * bins / max(1, len(probabilities))).astype(np.int64)[group]
    return found


def expected_calibration_error(probabilities: Numbers, labels: Labels, bins: int = BINS) -> float:
    """ECE over equal-mass bins."""
    gaps = np.bincount(equal_mass_bins(probabilities, bins), weights=labels - probabilities)
    return float(np.abs(gaps).sum() / max(1, len(probabilities)))


def ece_interval(
    probabilities: Numbers, labels: Labels, groups: Groups, *, bins: int = BINS, seed: int = 0
) -> Interval:
    """ECE with a 95 % bootstrap interval over groups, the bins held.

    Resampling adds noise of its own to sums of absolute values: the replicates are moved to have the ECE as their mean.
    """
    from indexer.evaluate.metrics import Interval

    value = expected_calibration_error(probabilities, labels, bins)
    names, group = np.unique(groups, return_inverse=True)
    count = len(names)
    bin_of = equal_mass_bins(probabilities, bins)
    gaps = np.bincount(group * bins + bin_of, weights=labels - probabilities, minlength=count * bins)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=REPLICATES)
    replicates = np.abs(drawn @ gaps.reshape(count, bins)).sum(axis=1) / (drawn @ np.bincount(group))
    low, high = np.percentile(replicates - replicates.mean() + value, [2.5, 97.5])
    return Interval(value, max(0.0, float(low)), float(high))


def reliability(probabilities: Numbers, labels: Labels, bins: int = BINS) -> tuple[Bin, ...]:
    """The reliability curve, of the bins that have pairs, in rising order."""
    bin_of = equal_mass_bins(probabilities, bins)
    return tuple(
        Bin(float(probabilities[bin_of == place].mean()), float(labels[bin_of == place].mean()), int(size))
        for place, size in enumerate(np.bincount(bin_of))
        if size
    )


def _cross_fitted(
    fitted: Callable[[Numbers, Labels, Groups], Curve], scores: Numbers, labels: Labels, groups: Groups, seed: int
) -> Numbers:
    fold_of = folds(groups, seed=seed)
    probabilities = np.empty(len(scores), dtype=np.float64)
    for fold in np.unique(fold_of):
        seen = fold_of != fold
        probabilities[~seen] = fitted(scores[seen], labels[seen], groups[seen])(scores[~seen])
    return probabilities


def _targets(labels: Labels) -> tuple[Numbers, tuple[float, float]]:
    """Platt's targets `(n,)`, and the two values they have."""
    positives = int(labels.sum())
    low, high = 1 / (len(labels) - positives + 2), (positives + 1) / (positives + 2)
    return np.where(labels, high, low), (low, high)


def _newton(scores: Numbers, targets: Numbers) -> tuple[float, float]:
    """Slope and intercept of least cross-entropy, by Newton's method with halved steps where a whole one overshoots."""
    design = np.stack([scores, np.ones_like(scores)], axis=1)
    weights = np.array([0.0, np.log(targets.mean() / (1 - targets.mean()))])

    def loss(at: Numbers) -> float:
        odds = design @ at
        return float((np.logaddexp(0.0, odds) - targets * odds).sum())

    for _ in range(NEWTON_STEPS):
        probabilities = _sigmoid(design @ weights)
        curvature = (design * (probabilities * (1 - probabilities))[:, None]).T @ design + SETTLED * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (probabilities - targets))
        while loss(weights - step) > loss(weights) and np.abs(step).max() > SETTLED:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() <= SETTLED:
            break
    return float(weights[0]), float(weights[1])


def _sigmoid(odds: Numbers) -> Numbers:
    return 0.5 * (1 + np.tanh(odds / 2))


def _curve(kind: Kind, scores: Numbers, probabilities: Numbers) -> Curve:
    """A curve through points that rounding may have laid on one another."""
    at, first = np.unique(scores, return_index=True)
    rising = np.maximum.accumulate(probabilities[first])
    return Curve(kind, tuple(zip(at.tolist(), rising.tolist(), strict=True)))
