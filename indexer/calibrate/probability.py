"""Calibration curves, from similarity scores to probabilities of the same product, and measures of their quality.

Everything here is a pure function of arrays: `scores` `(n,)` float, larger is more similar; `others` `(n,)` float, the
best score of any other item in the same search; `labels` `(n,)` bool, whether the pair is the same product; `groups`
`(n,)` int, the product of the pair's query, whose pairs stay in one fold.

- Logistic: P(same | s) = 1 / (1 + exp(-(a s + b))) (Platt: Probabilistic Outputs for Support Vector Machines and
  Comparisons to Regularized Likelihood Methods, 1999, section 2.2), here with a >= 0.
- Isotonic: the non-decreasing step function of least squares (Zadrozny, Elkan: Transforming Classifier Scores into
  Accurate Multiclass Probability Estimates, 2002, https://doi.org/10.1145/775047.775151), interpolated linearly.
- Margin: either curve as a function of s - w o instead of s, where o is the best other score and 0 <= w <= 1, from the
  score alone (w = 0) to the margin s - o (w = 1). The margin over other items predicts a match better than the score
  (Lowe: Distinctive Image Features from Scale-Invariant Keypoints, 2004, section 7.1, with a ratio of two distances,
  https://doi.org/10.1023/B:VISI.0000029664.99615.94). Within one search, s - w o rises with s for every w.
- ECE = sum over bins m of |B_m| / n |share of positives in B_m - mean probability in B_m| (Naeini, Cooper, Hauskrecht:
  Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015; Guo et al.: On Calibration of Modern Neural
  Networks, 2017, equation 3, https://arxiv.org/abs/1706.04599), over bins with equally many pairs.

Both curves are fitted to Platt's targets, (N+ + 1) / (N+ + 2) for the N+ pairs of the same product and 1 / (N- + 2) for
the N- others, which follow from a uniform prior: no probability is 0 or 1, and few pairs give less extreme ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # every search imports this module and needs only the curve
    from indexer.measures.metrics import Interval

Numbers = NDArray[np.float64]
Labels = NDArray[np.bool_]
Groups = NDArray[np.int64]
Kind = Literal["isotonic", "logistic"]

BINS = 15  # of the ECE, as in Guo et al. 2017, but with equally many pairs instead of equal width
MIN_PAIRS_PER_BIN = 20  # the share in a bin is then known to about 0.1
FOLDS = 5
REPLICATES = 1000
TAIL = 0.025  # at each end of the ECE's confidence interval
LARGEST, HALVINGS = 8.0, 12  # bisection for the true error: largest multiple of the ECE, and number of steps
LOGISTIC_KNOTS = 257  # evenly spaced in log-odds; linear interpolation errs by less than 0.0002
NEWTON_STEPS = 50
SETTLED = 1e-10


@dataclass(frozen=True)
class Curve:
    """A non-decreasing, piecewise linear map from score to probability, constant beyond the outer knots.

    Args:
        kind: fitting method.
        knots: (score, probability) pairs with increasing scores and non-decreasing probabilities in (0, 1).
    """

    kind: Kind
    knots: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        scores, probabilities = np.array(self.knots, dtype=np.float64).reshape(-1, 2).T
        inside = bool(((probabilities > 0) & (probabilities < 1)).all())
        rising = bool((np.diff(scores) > 0).all() and (np.diff(probabilities) >= 0).all())
        if not (len(scores) and inside and rising and np.isfinite(scores).all()):
            raise ValueError("knots must increase in score, not decrease in probability, and stay between 0 and 1")

    def __call__(self, scores: Numbers) -> Numbers:
        """Probabilities `(n,)` at scores `(n,)`."""
        at, probabilities = np.array(self.knots, dtype=np.float64).T
        found: Numbers = np.interp(np.asarray(scores, dtype=np.float64), at, probabilities)
        return found


@dataclass(frozen=True)
class HitCurve:
    """A map from a hit's score and the best other score of its search to a probability, which falls with the rank.

    Args:
        curve: a function of `score - margin_share * other`.
        margin_share: from 0 (score only) to 1 (margin only).
        alone: a function of the score, for a search with a single hit.
    """

    curve: Curve
    margin_share: float
    alone: Curve

    def __post_init__(self) -> None:
        if not 0 <= self.margin_share <= 1:
            raise ValueError(f"margin_share must be between 0 and 1, not {self.margin_share}")

    def __call__(self, scores: Numbers, others: Numbers) -> Numbers:
        """Probabilities `(n,)`; `others` is NaN if there is no other hit."""
        has_other = np.isfinite(others)
        of_margin = self.curve(scores - self.margin_share * np.where(has_other, others, 0.0))
        return np.where(has_other, of_margin, self.alone(scores))


class Bin(NamedTuple):
    """A point of the reliability curve: mean probability, share of the same product, number of pairs."""

    probability: float
    share: float
    pairs: int


def best_others(falling: Numbers) -> Numbers:
    """The best score of the other hits `(..., k)`, for falling scores `(..., k)`; NaN for a single hit."""
    others = np.repeat(falling[..., :1], falling.shape[-1], axis=-1)
    others[..., :1] = falling[..., 1:2] if falling.shape[-1] > 1 else np.nan
    return others


def fit(scores: Numbers, others: Numbers, labels: Labels, groups: Groups, *, seed: int = 0) -> HitCurve:
    """Choose the curve with the least cross-validated log loss, with or without margin, and fit it to all pairs."""
    candidates = [partial(use, kind) for use in (_fit_score, _fit_margin) for kind in (fit_logistic, fit_isotonic)]

    def loss(candidate: Callable[[Numbers, Numbers, Labels], HitCurve]) -> float:
        held_out = _cross_fitted(lambda s, o, y, g: candidate(s, o, y), scores, others, labels, groups, seed)
        return log_loss(held_out, labels)

    return min(candidates, key=loss)(scores, others, labels)


def cross_fit(scores: Numbers, others: Numbers, labels: Labels, groups: Groups, *, seed: int = 0) -> Numbers:
    """Cross-fitted probabilities `(n,)`: neither the choice nor the fit of a pair's curve has used its group."""
    return _cross_fitted(lambda s, o, y, g: fit(s, o, y, g, seed=seed + 1), scores, others, labels, groups, seed)


def fit_margin_share(scores: Numbers, others: Numbers, labels: Labels) -> float:
    """The w of the best-fitting logistic curve of s - w o, with non-negative slopes for score and margin."""
    targets, _ = _targets(labels)
    features = np.stack([scores, scores - others], axis=1)
    spreads = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(spreads > 0, spreads, 1.0)
    *slopes, _ = _newton(features, targets)
    if min(slopes) < 0:  # the loss is convex, so the constrained minimum is on a bound
        of_score, of_margin = (_rising_loss(feature[:, None], targets) for feature in features.T)
        return float(of_margin < of_score)
    score, margin = slopes / np.where(spreads > 0, spreads, np.inf)
    return float(margin / (score + margin)) if margin > 0 else 0.0


def fit_logistic(scores: Numbers, labels: Labels) -> Curve:
    """Platt's logistic curve, by Newton's method on standardised scores."""
    targets, (low, high) = _targets(labels)
    mean, spread = float(scores.mean()), float(scores.std())
    slope, intercept = _newton((scores - mean)[:, None] / (spread or 1.0), targets)
    reach = np.log(high / (1 - high)) - np.log(low / (1 - low))
    if not spread or slope < 1e-3 * reach:  # practically flat over the scores
        return Curve("logistic", ((mean, float(targets.mean())),))
    odds = np.linspace(np.log(low / (1 - low)), np.log(high / (1 - high)), LOGISTIC_KNOTS)
    return _curve("logistic", mean + spread * (odds - intercept) / slope, _sigmoid(odds))


def fit_isotonic(scores: Numbers, labels: Labels) -> Curve:
    """Isotonic regression on Platt's targets; knots are the ends of its steps."""
    from scipy.optimize import isotonic_regression

    targets, _ = _targets(labels)
    places, place_of, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(place_of, weights=targets) / counts
    levels = isotonic_regression(means, weights=counts).x
    is_end = np.ones(len(levels), dtype=bool)
    is_end[1:-1] = (levels[1:-1] != levels[:-2]) | (levels[1:-1] != levels[2:])
    return _curve("isotonic", places[is_end], levels[is_end])


def folds(groups: Groups, count: int = FOLDS, *, seed: int = 0) -> NDArray[np.int64]:
    """The fold of each pair `(n,)`, equal within a group; fold sizes differ by at most one group."""
    names, group = np.unique(groups, return_inverse=True)
    fold_of = np.random.default_rng(seed).permutation(len(names)) % count
    found: NDArray[np.int64] = fold_of[group]
    return found


def log_loss(probabilities: Numbers, labels: Labels) -> float:
    """Mean negative log-likelihood in nats per pair."""
    return float(-np.log(np.where(labels, probabilities, 1 - probabilities)).mean())


def brier(probabilities: Numbers, labels: Labels) -> float:
    """Mean squared error (Brier: Verification of Forecasts Expressed in Terms of Probability, 1950)."""
    return float(np.square(probabilities - labels).mean())


def bins_for(pairs: int) -> int:
    """The number of bins for a number of pairs."""
    return max(1, min(BINS, pairs // MIN_PAIRS_PER_BIN))


def equal_mass_bins(probabilities: Numbers, bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each probability `(n,)`, by mean rank: bins have equally many pairs, except that ties share one."""
    _, group, counts = np.unique(np.round(probabilities, 9), return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - counts + (counts - 1) / 2
    found: NDArray[np.int64] = (mean_rank * bins / max(1, len(probabilities))).astype(np.int64)[group]
    return found


def expected_calibration_error(probabilities: Numbers, labels: Labels, bins: int = BINS) -> float:
    """ECE over equal-mass bins."""
    return float(np.abs(_gaps(probabilities, labels, equal_mass_bins(probabilities, bins), bins)).sum())


def _gaps(probabilities: Numbers, labels: Labels, bin_of: NDArray[np.int64], bins: int) -> Numbers:
    """Sum of label - probability in each bin `(bins,)`, divided by the number of pairs."""
    sums = np.bincount(bin_of, weights=labels - probabilities, minlength=bins)
    gaps: Numbers = sums / max(1, len(probabilities))
    return gaps


def ece_interval(
    probabilities: Numbers, labels: Labels, groups: Groups, *, bins: int = BINS, seed: int = 0
) -> Interval:
    """ECE with a 95 % confidence interval of the true error, which is 0 for exact probabilities.

    The contribution of chance is simulated under the probabilities themselves (`ece_of_chance`) and scaled up in bins
    where groups vary more than that. A true error of c times the observed gaps, c >= 0, is in the interval unless the
    observed ECE is among the 2.5 % largest or smallest under that error. Chance inflates an ECE, so the upper end is
    never below the ECE itself.
    """
    from indexer.measures.metrics import Interval

    bin_of, count = equal_mass_bins(probabilities, bins), max(1, len(probabilities))
    gaps = _gaps(probabilities, labels, bin_of, bins)
    noise = _noise_of_chance(probabilities, bin_of, bins, seed) / count
    noise *= np.sqrt(_design_effects(probabilities, labels, groups, bin_of, bins))
    value = float(np.abs(gaps).sum())

    def tails(scale: float) -> tuple[float, float]:
        shown = np.abs(scale * gaps + noise).sum(axis=1)
        return float((shown >= value).mean()), float((shown <= value).mean())

    low = 0.0 if tails(0.0)[0] >= TAIL else _crossing(lambda scale: tails(scale)[0] - TAIL, 0.0, 1.0)
    high = 1.0 if tails(1.0)[1] < TAIL else _crossing(lambda scale: TAIL - tails(scale)[1], 1.0, LARGEST)
    return Interval(value, low * value, high * value)


def ece_of_chance(probabilities: Numbers, *, bins: int = BINS, seed: int = 0) -> float:
    """The mean ECE of labels drawn from these probabilities; with finitely many pairs it is not 0.

    Bröcker, Smith: Increasing the Reliability of Reliability Diagrams, 2007, section 3,
    https://doi.org/10.1175/WAF993.1.
    """
    noise = _noise_of_chance(probabilities, equal_mass_bins(probabilities, bins), bins, seed)
    return float(np.abs(noise).sum(axis=1).mean() / max(1, len(probabilities)))


def _noise_of_chance(probabilities: Numbers, bin_of: NDArray[np.int64], bins: int, seed: int) -> Numbers:
    """Sums of label - probability in each bin `(REPLICATES, bins)`, for labels drawn from the probabilities."""
    drawn = np.random.default_rng(seed).random((REPLICATES, len(probabilities))) < probabilities
    noise: Numbers = (drawn - probabilities) @ (bin_of[:, None] == np.arange(bins)).astype(np.float64)
    return noise


def _design_effects(
    probabilities: Numbers, labels: Labels, groups: Groups, bin_of: NDArray[np.int64], bins: int
) -> Numbers:
    """Design effect of each bin `(bins,)`: variance of its gap between groups over that of chance, at least 1."""
    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1
    sums = np.bincount(group * bins + bin_of, weights=labels - probabilities, minlength=count * bins)
    sizes = np.bincount(group * bins + bin_of, minlength=count * bins).reshape(count, bins)
    means = np.bincount(bin_of, weights=labels - probabilities, minlength=bins) / np.maximum(1, sizes.sum(axis=0))
    between = np.square(sums.reshape(count, bins) - sizes * means).sum(axis=0)
    chance = np.bincount(bin_of, weights=probabilities * (1 - probabilities), minlength=bins)
    effects: Numbers = np.maximum(1.0, between / np.where(chance > 0, chance, np.inf))
    return effects


def _crossing(increasing: Callable[[float], float], low: float, high: float) -> float:
    """The zero of an increasing function, by bisection; `high` if there is none."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < 0 else (low, middle)
    return high


def reliability(probabilities: Numbers, labels: Labels, bins: int = BINS) -> tuple[Bin, ...]:
    """The reliability curve over non-empty bins, by increasing probability."""
    bin_of = equal_mass_bins(probabilities, bins)
    return tuple(
        Bin(float(probabilities[bin_of == place].mean()), float(labels[bin_of == place].mean()), int(size))
        for place, size in enumerate(np.bincount(bin_of))
        if size
    )


def _fit_score(kind: Callable[[Numbers, Labels], Curve], scores: Numbers, _: Numbers, labels: Labels) -> HitCurve:
    curve = kind(scores, labels)
    return HitCurve(curve, 0.0, curve)


def _fit_margin(kind: Callable[[Numbers, Labels], Curve], scores: Numbers, others: Numbers, labels: Labels) -> HitCurve:
    share = fit_margin_share(scores, others, labels)
    return HitCurve(kind(scores - share * others, labels), share, kind(scores, labels))


def _cross_fitted(
    fitted: Callable[[Numbers, Numbers, Labels, Groups], HitCurve],
    scores: Numbers,
    others: Numbers,
    labels: Labels,
    groups: Groups,
    seed: int,
) -> Numbers:
    fold_of = folds(groups, seed=seed)
    probabilities = np.empty(len(scores), dtype=np.float64)
    for fold in np.unique(fold_of):
        training = fold_of != fold
        curve = fitted(scores[training], others[training], labels[training], groups[training])
        probabilities[~training] = curve(scores[~training], others[~training])
    return probabilities


def _targets(labels: Labels) -> tuple[Numbers, tuple[float, float]]:
    """Platt's targets `(n,)` and their two values."""
    positives = int(labels.sum())
    low, high = 1 / (len(labels) - positives + 2), (positives + 1) / (positives + 2)
    return np.where(labels, high, low), (low, high)


def _newton(features: Numbers, targets: Numbers) -> Numbers:
    """Slopes for features `(n, d)` and the intercept, `(d + 1,)`, of least cross-entropy, by damped Newton steps."""
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    weights = np.zeros(design.shape[1])
    weights[-1] = np.log(targets.mean() / (1 - targets.mean()))

    def loss(at: Numbers) -> float:
        return _cross_entropy(design @ at, targets)

    for _ in range(NEWTON_STEPS):
        probabilities = _sigmoid(design @ weights)
        curvature = (design * (probabilities * (1 - probabilities))[:, None]).T @ design + SETTLED * np.eye(
            len(weights)
        )
        step = np.linalg.solve(curvature, design.T @ (probabilities - targets))
        while loss(weights - step) > loss(weights) and np.abs(step).max() > SETTLED:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() <= SETTLED:
            break
    return weights


def _rising_loss(feature: Numbers, targets: Numbers) -> float:
    """The least cross-entropy of a non-decreasing logistic curve of one feature `(n, 1)`."""
    slope, intercept = _newton(feature, targets)
    if slope < 0:
        slope, intercept = 0.0, np.log(targets.mean() / (1 - targets.mean()))
    return _cross_entropy(slope * feature[:, 0] + intercept, targets)


def _cross_entropy(odds: Numbers, targets: Numbers) -> float:
    return float((np.logaddexp(0.0, odds) - targets * odds).sum())


def _sigmoid(odds: Numbers) -> Numbers:
    return 0.5 * (1 + np.tanh(odds / 2))


def _curve(kind: Kind, scores: Numbers, probabilities: Numbers) -> Curve:
    """A curve through points, some of which rounding may have made equal or decreasing."""
    at, first = np.unique(scores, return_index=True)
    rising = np.maximum.accumulate(probabilities[first])
    return Curve(kind, tuple(zip(at.tolist(), rising.tolist(), strict=True)))
