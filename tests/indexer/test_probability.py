"""Curves from score to probability, and their calibration error, against hand-worked and independent figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from indexer.probability import (
    BINS,
    FOLDS,
    Curve,
    brier,
    cross_fit,
    ece_interval,
    equal_mass_bins,
    expected_calibration_error,
    fit,
    fit_isotonic,
    fit_logistic,
    folds,
    log_loss,
    reliability,
)

Fit = Callable[[np.ndarray, np.ndarray], Curve]


def sigmoid(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


def known_logistic(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels drawn from P = sigmoid(12 s - 7), and groups of ten pairs."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, count)
    return scores, rng.random(count) < sigmoid(12 * scores - 7), np.arange(count) // 10


def test_the_calibration_error_of_a_hand_worked_table() -> None:
    """Bins {0.1, 0.2}, {0.6, 0.7}, {0.9, 0.9}: |0.5 - 0.15|, |0.5 - 0.65|, |1 - 0.9|, two pairs of six each."""
    probabilities = np.array([0.9, 0.1, 0.6, 0.2, 0.7, 0.9])
    labels = np.array([True, False, True, True, False, True])
    assert expected_calibration_error(probabilities, labels, 3) == pytest.approx((0.35 + 0.15 + 0.1) / 3)
    found = reliability(probabilities, labels, 3)
    assert [point.pairs for point in found] == [2, 2, 2]
    assert [point.share for point in found] == [0.5, 0.5, 1.0]
    assert [point.probability for point in found] == pytest.approx([0.15, 0.65, 0.9])
    assert brier(probabilities, labels) == pytest.approx((0.01 + 0.01 + 0.16 + 0.64 + 0.49 + 0.01) / 6)
    assert log_loss(probabilities, labels) == pytest.approx(-np.log([0.9, 0.9, 0.6, 0.2, 0.3, 0.9]).mean())


def test_the_calibration_error_equals_that_of_scikit_learns_reliability_curve() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.random(100 * BINS)
    labels = rng.random(100 * BINS) < probabilities**2
    shares, means = calibration_curve(labels, probabilities, n_bins=BINS, strategy="quantile")
    assert expected_calibration_error(probabilities, labels) == pytest.approx(np.abs(shares - means).mean())
    assert [point.share for point in reliability(probabilities, labels)] == pytest.approx(shares.tolist())


@given(hnp.arrays(np.float64, st.integers(1, 80), elements=st.sampled_from([0.1, 0.2, 0.5, 0.7, 0.9])))
@settings(max_examples=60, deadline=None)
def test_equal_probabilities_share_a_bin_in_whatever_order_they_come(probabilities: np.ndarray) -> None:
    bins = equal_mass_bins(probabilities)
    assert len(set(zip(probabilities.tolist(), bins.tolist(), strict=True))) == len(set(probabilities.tolist()))
    order = np.argsort(-probabilities, kind="stable")
    np.testing.assert_array_equal(equal_mass_bins(probabilities[order]), bins[order])
    assert (bins >= 0).all() and (bins < BINS).all()


def test_calibrated_probabilities_have_a_small_error_and_others_a_large_one() -> None:
    rng = np.random.default_rng(2)
    probabilities = rng.random(6000)
    labels = rng.random(6000) < probabilities
    groups = np.arange(6000) // 10
    right = ece_interval(probabilities, labels, groups)
    wrong = ece_interval(sigmoid(3 * np.log(probabilities / (1 - probabilities))), labels, groups)
    assert right.value < 0.03
    assert wrong.value > 0.1
    assert right.low <= right.value <= right.high < wrong.low <= wrong.value <= wrong.high


def test_the_interval_of_the_error_is_wider_where_pairs_of_a_group_go_together() -> None:
    rng = np.random.default_rng(3)
    probabilities = np.repeat(rng.random(100), 20)
    labels = np.repeat(rng.random(100) < probabilities[::20], 20)
    together = ece_interval(probabilities, labels, np.arange(2000) // 20)
    apart = ece_interval(probabilities, labels, np.arange(2000))
    assert together.value == apart.value
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_a_known_logistic_is_recovered() -> None:
    scores, labels, groups = known_logistic(20_000)
    at = np.linspace(0.2, 0.9, 50)
    for curve in (fit_logistic(scores, labels), fit(scores, labels, groups)):
        assert curve.kind == "logistic"
        np.testing.assert_allclose(curve(at), sigmoid(12 * at - 7), atol=0.03)
    assert expected_calibration_error(cross_fit(scores, labels, groups), labels) < 0.01


def test_the_logistic_equals_scikit_learns_where_the_targets_hardly_matter() -> None:
    scores, labels, _ = known_logistic(50_000, seed=4)
    theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(scores[:, None], labels)
    at = np.linspace(0.1, 0.95, 40)
    np.testing.assert_allclose(fit_logistic(scores, labels)(at), theirs.predict_proba(at[:, None])[:, 1], atol=2e-3)


def test_the_logistic_does_not_depend_on_the_unit_of_the_scores() -> None:
    scores, labels, _ = known_logistic(3000, seed=5)
    far = fit_logistic(1000 * scores - 5000, labels)
    np.testing.assert_allclose(far(1000 * scores - 5000), fit_logistic(scores, labels)(scores), atol=1e-6)


def test_a_step_that_no_logistic_has_is_fitted_isotonically() -> None:
    rng = np.random.default_rng(6)
    scores = rng.uniform(0, 1, 8000)
    truth = np.select([scores < 0.3, scores < 0.9], [0.02, 0.4], 0.95)
    curve = fit(scores, rng.random(8000) < truth, np.arange(8000) // 10)
    assert curve.kind == "isotonic"
    np.testing.assert_allclose(curve(np.array([0.15, 0.6, 0.95])), [0.02, 0.4, 0.95], atol=0.06)


labelled = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, n, elements=st.floats(-4, 1, width=32)), hnp.arrays(np.bool_, n, elements=st.booleans())
    )
)


@given(labelled, st.sampled_from([fit_logistic, fit_isotonic]))
@settings(max_examples=150, deadline=None)
def test_a_curve_never_falls_and_never_claims_certainty(pairs: tuple[np.ndarray, np.ndarray], fitted: Fit) -> None:
    scores, labels = pairs
    probabilities = fitted(scores, labels)(np.linspace(-6, 3, 200))
    positives = int(labels.sum())
    assert (np.diff(probabilities) >= 0).all()
    assert probabilities.min() >= 1 / (len(labels) - positives + 2) - 1e-12
    assert probabilities.max() <= (positives + 1) / (positives + 2) + 1e-12


@pytest.mark.parametrize("fitted", [fit_logistic, fit_isotonic])
def test_scores_that_fall_with_the_truth_give_a_level_curve(fitted: Fit) -> None:
    scores, labels, _ = known_logistic(2000)
    np.testing.assert_allclose(fitted(scores, ~labels)(np.array([0.0, 1.0])), (~labels).mean(), atol=0.01)


def test_a_groups_pairs_are_in_one_fold_and_folds_are_alike() -> None:
    groups = np.random.default_rng(7).integers(0, 103, 1000)
    fold_of = folds(groups)
    assert all(len(set(fold_of[groups == group].tolist())) == 1 for group in np.unique(groups))
    sizes = [len(np.unique(groups[fold_of == fold])) for fold in range(FOLDS)]
    assert max(sizes) - min(sizes) <= 1


def test_no_pair_is_judged_by_a_curve_that_has_seen_its_group() -> None:
    """Whatever a group's labels are, its own probabilities stay the same, and those of other folds do not."""
    scores, labels, groups = known_logistic(600, seed=8)
    before = cross_fit(scores, labels, groups)
    for group in (0, 17, 59):
        flipped = cross_fit(scores, labels ^ (groups == group), groups)
        np.testing.assert_array_equal(flipped[groups == group], before[groups == group])
        other_folds = folds(groups) != folds(groups)[groups == group][0]
        assert (flipped[other_folds] != before[other_folds]).mean() > 0.9


@pytest.mark.parametrize(
    "knots", [(), ((0.0, 0.0),), ((0.0, 0.5), (0.0, 0.6)), ((0.0, 0.5), (1.0, 0.4)), ((float("nan"), 0.5),)]
)
def test_knots_that_are_no_rising_curve_are_refused(knots: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="knots must rise"):
        Curve("isotonic", knots)
