"""Disentanglement of latents with respect to the known factors of drawn photos: MIG, DCI and linear probes.

Input: latents z `(N, D)` and K factors v_k `(N,)`, each discrete (text or integers) or continuous (floats).

- MIG, mutual information gap (Chen et al.: Isolating Sources of Disentanglement in Variational Autoencoders, 2018,
  equation 6, https://arxiv.org/abs/1802.04942): (I(z_a; v_k) - I(z_b; v_k)) / H(v_k), where units a and b have the
  highest and second highest mutual information with v_k; mean over the factors. Units and continuous factors are
  discretised into 20 bins of equal width, as in Locatello et al.: Challenging Common Assumptions in the Unsupervised
  Learning of Disentangled Representations, 2019, https://arxiv.org/abs/1811.12359.
- DCI (Eastwood, Williams: A Framework for the Quantitative Evaluation of Disentangled Representations, 2018,
  https://openreview.net/forum?id=By-7dz-AZ): one random forest for each factor gives a column of the importances
  R `(D, K)`.
  Disentanglement: D_j = 1 - H_K(R_j. / sum_k R_jk), mean over the units weighted by their share of R.
  Completeness: C_k = 1 - H_D(R_.k / sum_j R_jk), mean over the factors weighted likewise; H_b is entropy to base b.
  Informativeness: accuracy or R2 of the forests' predictions for held-out items.
- Linear probe: the same scores for a linear model, with the chance level.

Whole groups (items) are held out, so no model is tested on an item that it was fitted to. An undefined figure, such as
that of a factor with a single value, is NaN, and means ignore it.

Differs from the papers: MIG uses one latent vector for each photo, not samples of its posterior, and with a single unit
the second information is 0. Informativeness is a score, not an error, and R2 can be negative. The depth of the forests
is not tuned, but limited by leaves of at least 5 photos.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from indexer.measures.metrics import NO_INTERVAL, Bootstrap, Interval

Kind = Literal["accuracy", "r2"]
Values = NDArray[np.float64]
Codes = NDArray[np.intp]
Mask = NDArray[np.bool_]

BINS = 20
HELD_OUT = 0.25  # share of the groups that are held out
MIN_GROUPS = 2  # on both sides; a single group has no interval
TREES = 20
LEAF_PHOTOS = 5  # smaller leaves fit noise, which dilutes the importance of relevant units
ITERATIONS = 200
FOLDS = 4
PENALTIES = np.logspace(-2, 5, 8)


class Mig(NamedTuple):
    """The mutual information gap of each factor and their mean, in [0, 1]."""

    mean: float
    factors: dict[str, float]


class Dci(NamedTuple):
    """Disentanglement and completeness in [0, 1], and informativeness (at most 1): mean, and of each factor."""

    disentanglement: float
    completeness: float
    informativeness: float
    factors: dict[str, float]


class Probe(NamedTuple):
    """Score of a linear model on held-out photos, and of the best constant prediction (`chance`)."""

    score: Interval
    chance: float
    kind: Kind

    def to_json(self) -> dict[str, object]:
        return {"score": self.score.to_json(), "chance": self.chance, "kind": self.kind}


@dataclass(frozen=True)
class Disentanglement:
    """How well single units of an encoder's latents match the factors that the photos were drawn from."""

    mig: Mig
    dci: Dci
    probes: dict[str, Probe]

    def to_json(self) -> dict[str, object]:
        return {
            "mig": self.mig._asdict(),
            "dci": self.dci._asdict(),
            "probes": {name: probe.to_json() for name, probe in self.probes.items()},
        }


def disentanglement(
    z: NDArray[np.floating[Any]],
    factors: Mapping[str, NDArray[Any]],
    groups: Sequence[str] | NDArray[Any],
    *,
    seed: int = 0,
) -> Disentanglement:
    """All figures of latents `(N, D)` for factors `(N,)`; each model holds out the same groups.

    The forests take nearly all of the time, proportional to N D: 5 to 20 seconds for each factor with 3,000 x 512.
    """
    return Disentanglement(
        mig(z, factors),
        dci(z, factors, groups, seed=seed),
        {name: linear_probe(z, factor, groups, seed=seed) for name, factor in factors.items()},
    )


def mig(z: NDArray[np.floating[Any]], factors: Mapping[str, NDArray[Any]]) -> Mig:
    """The mutual information gap of each factor."""
    latents = _latents(z)
    units = [equal_width(unit) for unit in latents.T]
    gaps = {name: _gap(units, _target(latents, factor)) for name, factor in factors.items()}
    return Mig(_mean(gaps), gaps)


def _gap(units: Sequence[Codes], target: NDArray[Any]) -> float:
    codes = equal_width(target) if kind_of(target) == "r2" else target.astype(np.intp)
    entropy = _entropy(np.bincount(codes))
    if entropy == 0:
        return float("nan")
    second, first = np.sort([0.0, 0.0, *(mutual_information(unit, codes) for unit in units)])[-2:]
    return float((first - second) / entropy)


def equal_width(values: NDArray[np.floating[Any]]) -> Codes:
    """The bin `(N,)` of each value; `BINS` bins divide the range of the values equally."""
    low, span = values.min(), np.ptp(values)
    if span == 0:
        return np.zeros(len(values), np.intp)
    places: Codes = np.minimum((values - low) / span * BINS, BINS - 1).astype(np.intp)
    return places


def mutual_information(a: Codes, b: Codes) -> float:
    """I(a; b) = H(a) + H(b) - H(a, b) in nats, of two arrays of codes `(N,)` from 0."""
    width = int(b.max()) + 1
    joint = np.bincount(a * width + b, minlength=(int(a.max()) + 1) * width).reshape(-1, width)
    information = _entropy(joint.sum(axis=1)) + _entropy(joint.sum(axis=0)) - _entropy(joint)
    return max(information, 0.0)  # rounding can make it slightly negative


def _entropy(counts: NDArray[np.intp]) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def dci(
    z: NDArray[np.floating[Any]],
    factors: Mapping[str, NDArray[Any]],
    groups: Sequence[str] | NDArray[Any],
    *,
    seed: int = 0,
) -> Dci:
    """Disentanglement, completeness and informativeness by random forests.

    Every split considers every unit. If splits considered random subsets, irrelevant units would be used whenever the
    relevant ones are not in the subset, and 512 units that hold one factor each would seem to share the factors.
    """
    latents, names = _latents(z), _groups(z, groups)
    held_out = held_out_groups(names, seed=seed)
    columns, scores = [], {}
    for name, factor in factors.items():
        target = _target(latents, factor)
        scores[name] = float("nan")
        if _is_testable(target, names, held_out):
            forest = _forest(kind_of(target), seed).fit(latents[~held_out], target[~held_out])
            columns.append(forest.feature_importances_)
            scores[name] = float(forest.score(latents[held_out], target[held_out]))
    importance = np.array(columns).reshape(len(columns), latents.shape[1]).T
    return Dci(concentration(importance), concentration(importance.T), _mean(scores), scores)


def _forest(kind: Kind, seed: int) -> Any:
    family = RandomForestClassifier if kind == "accuracy" else RandomForestRegressor
    return family(TREES, max_features=1.0, min_samples_leaf=LEAF_PHOTOS, random_state=seed)


def concentration(importance: Values) -> float:
    """How concentrated each row of importances `(D, K)` is on one column: DCI disentanglement; completeness for `R.T`.

    Mean over the rows of 1 minus their entropy to base K, weighted by their share of the total importance. NaN if there
    is a single column, or if all importances are 0.
    """
    rows = importance.sum(axis=1)
    used = rows > 0
    if importance.shape[1] < 2 or not used.any():
        return float("nan")
    shares = importance[used] / rows[used, None]
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    entropies = -(shares * logs).sum(axis=1) / np.log(importance.shape[1])
    return float(np.clip(np.average(1 - entropies, weights=rows[used]), 0.0, 1.0))


def linear_probe(
    z: NDArray[np.floating[Any]],
    target: NDArray[Any],
    groups: Sequence[str] | NDArray[Any],
    *,
    seed: int = 0,
    replicates: int = 1000,
    split: Mask | None = None,
) -> Probe:
    """Held-out accuracy of a logistic regression, or R2 of a ridge regression, with its 95 % interval over the groups.

    The logistic regression uses scikit-learn's default penalty; the ridge penalty is selected by cross-validation over
    groups of the training side. Units are standardised on the training side, and all are used: 3,000 x 512 with 300
    labels take a second or two. A held-out label that the training side lacks counts as an error. Chance is the share
    of the most common held-out label, or 0 for R2. All figures are NaN if either side has fewer than two groups or two
    values.

    Args:
        z: `(N, D)`
        target: `(N,)` labels (text, integers or booleans), or floats.
        groups: `(N,)` groups that are held out and resampled as a whole.
        split: `(N,)` true for the photos to hold out, instead of a quarter of the groups. It may put photos of one
            group on both sides, for a probe that predicts the groups themselves.
    """
    latents, names = _latents(z), _groups(z, groups)
    values = _target(latents, target)
    kind = kind_of(values)
    held_out = held_out_groups(names, seed=seed) if split is None else _mask(latents, split)
    if not _is_testable(values, names, held_out):
        return Probe(NO_INTERVAL, float("nan"), kind)
    scaler = StandardScaler().fit(latents[~held_out])
    x, xq = scaler.transform(latents[~held_out]), scaler.transform(latents[held_out])
    bootstrap = Bootstrap(names[held_out].tolist(), replicates=replicates, seed=seed)
    truth = values[held_out]
    if kind == "accuracy":
        correct = _logistic(x, values[~held_out]).predict(xq) == truth
        chance = np.unique(truth, return_counts=True)[1].max() / len(truth)
        return Probe(bootstrap.share(correct.astype(np.float64)), float(chance), kind)
    predicted = _ridge(x, values[~held_out], names[~held_out]).predict(xq)
    missed = bootstrap.ratio((truth - predicted) ** 2, (truth - truth.mean()) ** 2)
    return Probe(Interval(1 - missed.value, 1 - missed.high, 1 - missed.low), 0.0, kind)


def _logistic(x: Values, labels: NDArray[Any]) -> Any:
    with warnings.catch_warnings():
        # If the iterations end before convergence, the weights are only slightly smaller than at the optimum.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(max_iter=ITERATIONS).fit(x, labels)


def _ridge(x: Values, y: NDArray[Any], groups: NDArray[np.str_]) -> Any:
    # With folds of single photos, values constant within a group would be memorised, favouring the smallest penalty.
    folds = GroupKFold(min(FOLDS, len(np.unique(groups)))).split(x, groups=groups)
    return RidgeCV(PENALTIES, cv=folds, scoring="neg_mean_squared_error").fit(x, y)


def held_out_groups(groups: Sequence[str] | NDArray[Any], *, seed: int = 0) -> NDArray[np.bool_]:
    """`(N,)` true for the photos of a random `HELD_OUT` share of the groups, at least two groups."""
    names, group = np.unique(np.asarray(groups, np.str_), return_inverse=True)
    count = max(MIN_GROUPS, round(HELD_OUT * len(names)))
    return np.isin(group, np.random.default_rng(seed).permutation(len(names))[:count])


def kind_of(target: NDArray[Any]) -> Kind:
    """How predictions of a factor are scored: floats by R2; text, integers and booleans by accuracy.

    Raises:
        ValueError: another dtype.
    """
    if target.dtype.kind == "f":
        return "r2"
    if target.dtype.kind in "biuUSO":
        return "accuracy"
    raise ValueError(f"a factor has dtype {target.dtype}; give floats, or labels as text or integers")


def _is_testable(target: NDArray[Any], groups: NDArray[np.str_], held_out: Mask) -> bool:
    return all(
        len(np.unique(groups[side])) >= MIN_GROUPS and len(np.unique(target[side])) > 1
        for side in (held_out, ~held_out)
    )


def _latents(z: NDArray[np.floating[Any]]) -> Values:
    if z.ndim != 2 or z.size == 0 or not np.isfinite(z).all():
        raise ValueError(f"latents of shape {z.shape} are not finite (N, D) numbers; give one row for each photo")
    return z.astype(np.float64)


def _target(z: Values, factor: NDArray[Any]) -> Codes | Values:
    """A continuous factor unchanged, or the labels of a discrete one as codes from 0."""
    if factor.shape != (len(z),):
        raise ValueError(f"a factor has shape {factor.shape} for {len(z)} latents; give one value for each")
    if kind_of(factor) == "accuracy":
        labels = factor.astype(np.str_) if factor.dtype.kind == "O" else factor
        codes: Codes = np.unique(labels, return_inverse=True)[1]
        return codes
    if not np.isfinite(factor).all():
        raise ValueError("a factor has values that are not finite; omit those photos")
    return factor.astype(np.float64)


def _groups(z: NDArray[np.floating[Any]], groups: Sequence[str] | NDArray[Any]) -> NDArray[np.str_]:
    if len(groups) != len(z):
        raise ValueError(f"{len(groups)} groups are given for {len(z)} latents; give one for each")
    return np.asarray(groups, np.str_)


def _mask(z: Values, split: Mask) -> Mask:
    if split.shape != (len(z),) or split.dtype != np.bool_:
        raise ValueError(f"the split has shape {split.shape} and dtype {split.dtype}; give ({len(z)},) booleans")
    return split


def _mean(figures: Mapping[str, float]) -> float:
    known = [figure for figure in figures.values() if not np.isnan(figure)]
    return float(np.mean(known)) if known else float("nan")
