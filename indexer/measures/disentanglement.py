"""Disentanglement of latents against the known factors of drawn photos: MIG, DCI and linear probes.

Given are latents z `(N, D)` and K factors v_k `(N,)`, each discrete (text or whole numbers) or continuous (floats).

- MIG, mutual information gap (Chen et al.: Isolating Sources of Disentanglement in Variational Autoencoders, 2018,
  equation 6, https://arxiv.org/abs/1802.04942): (I(z_a; v_k) - I(z_b; v_k)) / H(v_k), a and b the units that tell most
  and second most of v_k; mean over the factors. Units and continuous factors are cut into 20 bins of equal width, as in
  Locatello et al.: Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations, 2019,
  https://arxiv.org/abs/1811.12359.
- DCI (Eastwood, Williams: A Framework for the Quantitative Evaluation of Disentangled Representations, 2018,
  https://openreview.net/forum?id=By-7dz-AZ): a random forest per factor gives a column of the importances R `(D, K)`.
  Disentanglement: D_j = 1 - H_K(R_j. / sum_k R_jk), mean over the units weighted by their share of R.
  Completeness: C_k = 1 - H_D(R_.k / sum_j R_jk), mean over the factors weighted likewise; H_b is entropy to base b.
  Informativeness: what the forests predict of the held-out items, accuracy or R2.
- Probe: the same of a linear model, beside what is had by chance.

Held out are whole groups (items), so that nothing is judged on an item it was fitted to. A figure that has no meaning,
such as that of a factor with one value only, is NaN, and means leave it out.

Differs from the papers: MIG is of one latent vector per photo, not of samples of its posterior, and with a single unit
the second information is 0. Informativeness is a score, not an error, and may be below 0 where it is R2. The forests'
depth is not searched for: leaves of at least 5 photos bound it.
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
HELD_OUT = 0.25  # share of the groups
MIN_GROUPS = 2  # on either side: of a single one there is no interval
TREES = 20
LEAF_PHOTOS = 5  # deeper leaves fit noise, whose importance hides that of the units that matter
ITERATIONS = 200
FOLDS = 4
PENALTIES = np.logspace(-2, 5, 8)


class Mig(NamedTuple):
    """The mutual information gap of each factor, in [0, 1], and their mean."""

    mean: float
    factors: dict[str, float]


class Dci(NamedTuple):
    """Disentanglement and completeness in [0, 1], and informativeness, at most 1, of each factor and in the mean."""

    disentanglement: float
    completeness: float
    informativeness: float
    factors: dict[str, float]


class Probe(NamedTuple):
    """What a linear model predicts of the held-out photos, and what a constant that knew their mean or mode would."""

    score: Interval
    chance: float
    kind: Kind

    def to_json(self) -> dict[str, object]:
        return {"score": self.score.to_json(), "chance": self.chance, "kind": self.kind}


@dataclass(frozen=True)
class Disentanglement:
    """How far the units of an encoder's latents are the factors that its photos were drawn from."""

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
    """All figures of latents `(N, D)` by the factors `(N,)` of their photos; the same groups are held out of each.

    The forests take nearly all of the time, in proportion to N D: of 3,000 x 512, 5 to 20 seconds a factor.
    """
    return Disentanglement(
        mig(z, factors),
        dci(z, factors, groups, seed=seed),
        {name: linear_probe(z, factor, groups, seed=seed) for name, factor in factors.items()},
    )


def mig(z: NDArray[np.floating[Any]], factors: Mapping[str, NDArray[Any]]) -> Mig:
    """The mutual information gap of every factor."""
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


def equal_width(values: NDArray[np.floating[Any]], bins: int = BINS) -> Codes:
    """The bin `(N,)` of each value, of as many as given between the smallest and the largest."""
    low, span = values.min(), np.ptp(values)
    if span == 0:
        return np.zeros(len(values), np.intp)
    places: Codes = np.minimum((values - low) / span * bins, bins - 1).astype(np.intp)
    return places


def mutual_information(a: Codes, b: Codes) -> float:
    """I(a; b) = H(a) + H(b) - H(a, b) in nats, of two codes `(N,)` counted from 0."""
    width = int(b.max()) + 1
    joint = np.bincount(a * width + b, minlength=(int(a.max()) + 1) * width).reshape(-1, width)
    information = _entropy(joint.sum(axis=1)) + _entropy(joint.sum(axis=0)) - _entropy(joint)
    return max(information, 0.0)  # rounding may leave it just below


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

    Every split considers every unit: where only some do, units that tell nothing are split at where those that matter
    are not among them, and 512 units that hold one factor each seem to share them.
    """
    latents, names = _latents(z), _groups(z, groups)
    held_out = held_out_groups(names, seed=seed)
    columns, scores = [], {}
    for name, factor in factors.items():
        target = _target(latents, factor)
        scores[name] = float("nan")
        if _can_judge(target, names, held_out):
            forest = _forest(kind_of(target), seed).fit(latents[~held_out], target[~held_out])
            columns.append(forest.feature_importances_)
            scores[name] = float(forest.score(latents[held_out], target[held_out]))
    importance = np.array(columns).reshape(len(columns), latents.shape[1]).T
    return Dci(concentration(importance), concentration(importance.T), _mean(scores), scores)


def _forest(kind: Kind, seed: int) -> Any:
    family = RandomForestClassifier if kind == "accuracy" else RandomForestRegressor
    return family(TREES, max_features=1.0, min_samples_leaf=LEAF_PHOTOS, random_state=seed)


def concentration(importance: Values) -> float:
    """How far each row of importances `(D, K)` is of one column alone: DCI's disentanglement, or completeness of `R.T`.

    Mean over the rows of 1 less their entropy to base K, weighted by their share of all; NaN with one column, to which
    there is no base, or where nothing is important.
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

    The one has scikit-learn's penalty, the other that which does best on groups held out of the train side itself.
    Units are standardised by the train side, and none is dropped: 3,000 x 512 with 300 labels take a second or two. A
    held-out label that the train side lacks counts as missed. Chance is the share of the commonest held-out label, or 0
    for R2. All is NaN where either side has fewer than two groups or two values.

    Args:
        z: `(N, D)`
        target: `(N,)` labels (text, whole numbers, truth values), or floats.
        groups: `(N,)` what is held out, and resampled, together.
        split: `(N,)` true for the photos to hold out, in place of a quarter of the groups. It is taken as it is, so
            that a probe for the groups themselves may have photos of each on both sides.
    """
    latents, names = _latents(z), _groups(z, groups)
    values = _target(latents, target)
    kind = kind_of(values)
    held_out = held_out_groups(names, seed=seed) if split is None else _mask(latents, split)
    if not _can_judge(values, names, held_out):
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
        # Where the iterations end before the optimum, the weights are only a little smaller than the penalty asks.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(max_iter=ITERATIONS).fit(x, labels)


def _ridge(x: Values, y: NDArray[Any], groups: NDArray[np.str_]) -> Any:
    # By single photos, a value that is the same all over its group would be learnt by heart, and the least penalty win.
    folds = GroupKFold(min(FOLDS, len(np.unique(groups)))).split(x, groups=groups)
    return RidgeCV(PENALTIES, cv=folds, scoring="neg_mean_squared_error").fit(x, y)


def held_out_groups(
    groups: Sequence[str] | NDArray[Any], *, share: float = HELD_OUT, seed: int = 0
) -> NDArray[np.bool_]:
    """`(N,)` true for the photos of a random share of the groups, at least two of them."""
    names, group = np.unique(np.asarray(groups, np.str_), return_inverse=True)
    count = max(MIN_GROUPS, round(share * len(names)))
    return np.isin(group, np.random.default_rng(seed).permutation(len(names))[:count])


def kind_of(target: NDArray[Any]) -> Kind:
    """How predictions of a factor are scored: floats are continuous; text, whole numbers and truth values are labels.

    Raises:
        ValueError: it is of no such kind.
    """
    if target.dtype.kind == "f":
        return "r2"
    if target.dtype.kind in "biuUSO":
        return "accuracy"
    raise ValueError(f"a factor is of type {target.dtype}; give floats, or labels as text or whole numbers")


def _can_judge(target: NDArray[Any], groups: NDArray[np.str_], held_out: Mask) -> bool:
    return all(
        len(np.unique(groups[side])) >= MIN_GROUPS and len(np.unique(target[side])) > 1
        for side in (held_out, ~held_out)
    )


def _latents(z: NDArray[np.floating[Any]]) -> Values:
    if z.ndim != 2 or z.size == 0 or not np.isfinite(z).all():
        raise ValueError(f"latents of shape {z.shape} are not (N, D) finite numbers; give a row per photo")
    return z.astype(np.float64)


def _target(z: Values, factor: NDArray[Any]) -> Codes | Values:
    """A continuous factor as it is, or the labels of a discrete one counted from 0."""
    if factor.shape != (len(z),):
        raise ValueError(f"a factor of shape {factor.shape} is given for {len(z)} latents; give one value each")
    if kind_of(factor) == "accuracy":
        labels = factor.astype(np.str_) if factor.dtype.kind == "O" else factor
        codes: Codes = np.unique(labels, return_inverse=True)[1]
        return codes
    if not np.isfinite(factor).all():
        raise ValueError("a factor has values that are not finite; leave those photos out")
    return factor.astype(np.float64)


def _groups(z: NDArray[np.floating[Any]], groups: Sequence[str] | NDArray[Any]) -> NDArray[np.str_]:
    if len(groups) != len(z):
        raise ValueError(f"{len(groups)} groups are given for {len(z)} latents; give one each")
    return np.asarray(groups, np.str_)


def _mask(z: Values, split: Mask) -> Mask:
    if split.shape != (len(z),) or split.dtype != np.bool_:
        raise ValueError(f"a split of {split.shape} {split.dtype} is given; give ({len(z)},) truth values")
    return split


def _mean(figures: Mapping[str, float]) -> float:
    known = [figure for figure in figures.values() if not np.isnan(figure)]
    return float(np.mean(known)) if known else float("nan")
