"""From similarity scores to the probability that two photos show the same product, and how far that is to be believed.

Everything here is a pure function of arrays: `scores` `(n,)` float, larger is more similar; `others` `(n,)` float, the
best score of any other item in the same search; `labels` `(n,)` bool, whether the pair is of one product; `groups`
`(n,)` int, the product of the pair's query, whose pairs are never parted.

- Logistic: P(same | s) = 1 / (1 + exp(-(a s + b))) (Platt: Probabilistic Outputs for Support Vector Machines and
  Comparisons to Regularized Likelihood Methods, 1999, section 2.2), here with a >= 0.
- Isotonic: the rising step function of least squares (Zadrozny, Elkan: Transforming Classifier Scores into Accurate
  Multiclass Probability Estimates, 2002, https://doi.org/10.1145/775047.775151), joined up linearly.
- Margin: either curve of s - w o in place of s, where o is the best other score and 0 <= w <= 1, so between the score
  (w = 0) and the margin s - o (w = 1): how far a hit stands clear of the others says more than how near it is (Lowe:
  Distinctive Image Features from Scale-Invariant Keypoints, 2004, section 7.1, of the ratio of two distances,
  https://doi.org/10.1023/B:VISI.0000029664.99615.94). Within one search it rises with s whatever w is.
- ECE = sum over bins m of |B_m| / n |share of positives in B_m - mean probability in B_m| (Naeini, Cooper, Hauskrecht:
  Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015; Guo et al.: On Calibration of Modern Neural
  Networks, 2017, equation 3, https://arxiv.org/abs/1706.04599), over bins with as many pairs each.

Both curves are fitted to Platt's targets, (N+ + 1) / (N+ + 2) for the N+ pairs of one product and 1 / (N- + 2) for
the N- others, as a uniform prior has it: no probability is 0 or 1, and few pairs claim less than many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # every search imports this module, and needs but the curve
    from indexer.measures.metrics import Interval

Numbers = NDArray[np.float64]
Labels = NDArray[np.bool_]
Groups = NDArray[np.int64]
Kind = Literal["isotonic", "logistic"]

BINS = 15  # of the ECE, as Guo et al. 2017 take them, but equal in pairs rather than in width
PAIRS_A_BIN = 20  # at least, where the figures are of few: the share in a bin is then known to 0.1 or so
FOLDS = 5
REPLICATES = 1000
TAIL = 0.025  # of each end of the ECE's interval
LARGEST, HALVINGS = 8.0, 12  # of what is tried as the true error: multiples of the ECE, and how finely
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


@dataclass(frozen=True)
class HitCurve:
    """From the score of a hit and the best other score of its search to a probability that falls with the rank.

    Args:
        curve: of `score - margin_share * other`.
        margin_share: from 0, the score alone, to 1, the margin alone.
        alone: of the score, for a hit that has no other beside it.
    """

    curve: Curve
    margin_share: float
    alone: Curve

    def __post_init__(self) -> None:
        if not 0 <= self.margin_share <= 1:
            raise ValueError(f"margin_share must be between 0 and 1, not {self.margin_share}")

    def __call__(self, scores: Numbers, others: Numbers) -> Numbers:
        """Probabilities `(n,)`; `others` is NaN where there is none."""
        beside = np.isfinite(others)
        of_margin = self.curve(scores - self.margin_share * np.where(beside, others, 0.0))
        return np.where(beside, of_margin, self.alone(scores))


class Bin(NamedTuple):
    """A point of the reliability curve: mean probability, share that was of one product, number of pairs."""

    probability: float
    share: float
    pairs: int


def best_others(falling: Numbers) -> Numbers:
    """The best score of the other hits `(..., k)` of searches whose scores `(..., k)` fall; NaN where there is none."""
    others = np.repeat(falling[..., :1], falling.shape[-1], axis=-1)
    others[..., :1] = falling[..., 1:2] if falling.shape[-1] > 1 else np.nan
    return others


def fit(scores: Numbers, others: Numbers, labels: Labels, groups: Groups, *, seed: int = 0) -> HitCurve:
    """The curve with the least log loss on held-out groups, with the margin or without it, fitted to all pairs."""
    candidates = [partial(use, kind) for use in (_fit_score, _fit_margin) for kind in (fit_logistic, fit_isotonic)]

    def loss(candidate: Callable[[Numbers, Numbers, Labels], HitCurve]) -> float:
        held_out = _cross_fitted(lambda s, o, y, g: candidate(s, o, y), scores, others, labels, groups, seed)
        return log_loss(held_out, labels)

    return min(candidates, key=loss)(scores, others, labels)


def cross_fit(scores: Numbers, others: Numbers, labels: Labels, groups: Groups, *, seed: int = 0) -> Numbers:
    """Probabilities `(n,)`, each by a curve whose fitting and choice have not seen the pair's group."""
    return _cross_fitted(lambda s, o, y, g: fit(s, o, y, g, seed=seed + 1), scores, others, labels, groups, seed)


def fit_margin_share(scores: Numbers, others: Numbers, labels: Labels) -> float:
    """The w of the logistic curve of s - w o that fits best: of score and margin, with no slope below 0."""
    targets, _ = _targets(labels)
    features = np.stack([scores, scores - others], axis=1)
    spreads = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(spreads > 0, spreads, 1.0)
    *slopes, _ = _newton(features, targets)
    if min(slopes) < 0:  # the loss is convex: its least value within bounds is on one of them
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
    if not spread or slope < 1e-3 * reach:  # no rise worth the name within the scores
        return Curve("logistic", ((mean, float(targets.mean())),))
    odds = np.linspace(np.log(low / (1 - low)), np.log(high / (1 - high)), LOGISTIC_KNOTS)
    return _curve("logistic", mean + spread * (odds - intercept) / slope, _sigmoid(odds))


def fit_isotonic(scores: Numbers, labels: Labels) -> Curve:
    """Isotonic regression on Platt's targets; knots are where a level begins or ends."""
    from scipy.optimize import isotonic_regression

    targets, _ = _targets(labels)
    places, place_of, counts = np.unique(scores, return_inverse=True, return_counts=True)
    means = np.bincount(place_of, weights=targets) / counts
    levels = isotonic_regression(means, weights=counts).x
    is_end = np.ones(len(levels), dtype=bool)
    is_end[1:-1] = (levels[1:-1] != levels[:-2]) | (levels[1:-1] != levels[2:])
    return _curve("isotonic", places[is_end], levels[is_end])


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


def bins_for(pairs: int) -> int:
    """How many bins so many pairs are enough for."""
    return max(1, min(BINS, pairs // PAIRS_A_BIN))


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
    """ECE with a 95 % interval of the true error, which is 0 where the probabilities are true.

    What chance adds to the ECE is drawn under the probabilities themselves (`ece_of_chance`), scaled up in bins where
    groups differ by more than that. An error of c times the gaps found, c >= 0, is in the interval where the ECE found
    is not among the 2.5 % largest or smallest that such an error would show; chance makes an ECE too large, so the
    upper end is never below the ECE itself.
    """
    from indexer.measures.metrics import Interval

    bin_of, count = equal_mass_bins(probabilities, bins), max(1, len(probabilities))
    gaps = np.bincount(bin_of, weights=labels - probabilities, minlength=bins) / count
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
    """The ECE that these probabilities would have on average if they were true, so few pairs being what they are.

    Bröcker, Smith: Increasing the Reliability of Reliability Diagrams, 2007, section 3,
    https://doi.org/10.1175/WAF993.1.
    """
    noise = _noise_of_chance(probabilities, equal_mass_bins(probabilities, bins), bins, seed)
    return float(np.abs(noise).sum(axis=1).mean() / max(1, len(probabilities)))


def _noise_of_chance(probabilities: Numbers, bin_of: NDArray[np.int64], bins: int, seed: int) -> Numbers:
    """Sums of label - probability in each bin `(REPLICATES, bins)`, of labels drawn by the probabilities."""
    drawn = np.random.default_rng(seed).random((REPLICATES, len(probabilities))) < probabilities
    noise: Numbers = (drawn - probabilities) @ (bin_of[:, None] == np.arange(bins)).astype(np.float64)
    return noise


def _design_effects(
    probabilities: Numbers, labels: Labels, groups: Groups, bin_of: NDArray[np.int64], bins: int
) -> Numbers:
    """How many times as much each bin's gap varies between groups as by chance, 1 or more `(bins,)`."""
    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max()) + 1
    sums = np.bincount(group * bins + bin_of, weights=labels - probabilities, minlength=count * bins)
    sizes = np.bincount(group * bins + bin_of, minlength=count * bins).reshape(count, bins)
    means = np.bincount(bin_of, weights=labels - probabilities, minlength=bins) / np.maximum(1, sizes.sum(axis=0))
    between = np.square(sums.reshape(count, bins) - sizes * means).sum(axis=0)
    chance = np.bincount(bin_of, weights=probabilities * (1 - probabilities), minlength=bins)
    effects: Numbers = np.maximum(1.0, between / np.where(chance > 0, chance, np.inf))
    return effects


def _crossing(falls_below: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function passes 0, by halving; `high` where it does not."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if falls_below(middle) < 0 else (low, middle)
    return high


def reliability(probabilities: Numbers, labels: Labels, bins: int = BINS) -> tuple[Bin, ...]:
    """The reliability curve, of the bins that have pairs, in rising order."""
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
        seen = fold_of != fold
        curve = fitted(scores[seen], others[seen], labels[seen], groups[seen])
        probabilities[~seen] = curve(scores[~seen], others[~seen])
    return probabilities


def _targets(labels: Labels) -> tuple[Numbers, tuple[float, float]]:
    """Platt's targets `(n,)`, and the two values they have."""
    positives = int(labels.sum())
    low, high = 1 / (len(labels) - positives + 2), (positives + 1) / (positives + 2)
    return np.where(labels, high, low), (low, high)


def _newton(features: Numbers, targets: Numbers) -> Numbers:
    """Slopes of features `(n, d)` and the intercept, `(d + 1,)`, of least cross-entropy, by Newton's method.

    Steps are halved where a whole one overshoots.
    """
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
    """The least cross-entropy of a logistic curve of one feature `(n, 1)` that does not fall."""
    slope, intercept = _newton(feature, targets)
    if slope < 0:
        slope, intercept = 0.0, np.log(targets.mean() / (1 - targets.mean()))
    return _cross_entropy(slope * feature[:, 0] + intercept, targets)


def _cross_entropy(odds: Numbers, targets: Numbers) -> float:
    return float((np.logaddexp(0.0, odds) - targets * odds).sum())


def _sigmoid(odds: Numbers) -> Numbers:
    return 0.5 * (1 + np.tanh(odds / 2))


def _curve(kind: Kind, scores: Numbers, probabilities: Numbers) -> Curve:
    """A curve through points that rounding may have laid on one another."""
    at, first = np.unique(scores, return_index=True)
    rising = np.maximum.accumulate(probabilities[first])
    return Curve(kind, tuple(zip(at.tolist(), rising.tolist(), strict=True)))
