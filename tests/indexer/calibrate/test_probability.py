"""Curves from score to probability, and their calibration error, against hand-worked and independent figures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from indexer.calibrate.probability import (
    BINS,
    FOLDS,
    Curve,
    HitCurve,
    best_others,
    bins_for,
    brier,
    cross_fit,
    ece_interval,
    ece_of_chance,
    equal_mass_bins,
    expected_calibration_error,
    fit,
    fit_isotonic,
    fit_logistic,
    fit_margin_share,
    folds,
    log_loss,
    reliability,
)

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Fit = Callable[[np.ndarray, np.ndarray], Curve]


def sigmoid(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


def known_logistic(count: int, seed: int = 0) -> Arrays:
    """Scores, best others that say nothing, labels drawn from P = sigmoid(12 s - 7), and groups of ten pairs."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, count)
    labels = rng.random(count) < sigmoid(12 * scores - 7)
    return scores, rng.uniform(0, 1, count), labels, np.arange(count) // 10


def searches_at_many_levels(queries: int, seed: int = 0) -> Arrays:
    """Ten hits a query, of which one is the product: it stands clear of the others, wherever these are."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(-1, 0, (queries, 1)) - rng.exponential(0.02, (queries, 10))
    product = rng.integers(10, size=(queries, 1)) == np.arange(10)
    scores[product] = scores.max(axis=1) + rng.normal(0.02, 0.02, queries)
    falling = np.argsort(-scores, axis=1)
    scores, labels = (np.take_along_axis(of, falling, axis=1) for of in (scores, product))
    return scores.ravel(), best_others(scores).ravel(), labels.ravel(), np.arange(10 * queries) // 10


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


def test_the_interval_holds_the_true_error_as_often_as_it_says() -> None:
    """Of true probabilities that is 0, and an ECE that is resampled about itself hardly ever comes near it."""
    rng, trials, held, resampled = np.random.default_rng(5), 60, np.zeros(2), 0
    for trial in range(trials):
        true = rng.beta(0.4, 2.0, 600).clip(1e-3, 1 - 1e-3)
        labels, groups = rng.random(600) < true, np.arange(600) // 10
        for place, claimed in enumerate((true, true / 2)):
            interval = ece_interval(claimed, labels, groups, seed=trial)
            held[place] += interval.low <= (true - claimed).mean() <= interval.high
        bin_of = equal_mass_bins(true)
        gaps = np.bincount(groups * BINS + bin_of, weights=labels - true, minlength=60 * BINS).reshape(60, BINS)
        drawn = np.abs(rng.multinomial(60, np.full(60, 1 / 60), 300) @ gaps).sum(axis=1) / 600
        value = expected_calibration_error(true, labels)
        resampled += np.percentile(drawn - drawn.mean() + value, 2.5) <= 0
    assert held[0] >= 0.93 * trials and held[1] >= 0.88 * trials
    assert resampled < 0.2 * trials


def test_true_probabilities_have_the_error_of_chance_and_false_ones_a_larger_one() -> None:
    rng = np.random.default_rng(12)
    probabilities = rng.uniform(0.6, 1, 150)
    chance = ece_of_chance(probabilities, bins=bins_for(150))
    errors = [
        expected_calibration_error(probabilities, rng.random(150) < probabilities, bins_for(150)) for _ in range(300)
    ]
    assert chance == pytest.approx(np.mean(errors), abs=0.005)
    assert chance < 0.07
    assert expected_calibration_error(probabilities / 2, rng.random(150) < probabilities, bins_for(150)) > 5 * chance
    assert ece_of_chance(probabilities[:1]) == pytest.approx(2 * probabilities[0] * (1 - probabilities[0]), abs=0.05)


def test_few_pairs_are_laid_into_few_bins() -> None:
    assert [bins_for(pairs) for pairs in (1, 39, 40, 100, 299, 300, 9999)] == [1, 1, 2, 5, 14, BINS, BINS]


def test_a_known_logistic_is_recovered() -> None:
    scores, others, labels, groups = known_logistic(12_000)
    at = np.linspace(0.2, 0.9, 50)
    found = fit(scores, others, labels, groups)
    assert found.margin_share < 0.03, "the margin says nothing here"
    for curve in (fit_logistic(scores, labels), found.curve, found.alone):
        assert curve.kind == "logistic"
        np.testing.assert_allclose(curve(at), sigmoid(12 * at - 7), atol=0.03)
    np.testing.assert_allclose(found(at, np.full(50, np.nan)), sigmoid(12 * at - 7), atol=0.03)
    assert expected_calibration_error(cross_fit(scores, others, labels, groups), labels) < 0.01


def test_first_hits_that_the_score_cannot_judge_are_judged_by_their_margin() -> None:
    """Scores of one level are the product in one search and not in another; the truth is in how clear a hit stands."""
    scores, others, labels, groups = searches_at_many_levels(800)
    first = np.arange(len(scores)) % 10 == 0
    no_margins = cross_fit(scores, np.zeros_like(scores), labels, groups)
    with_margins = cross_fit(scores, others, labels, groups)
    assert expected_calibration_error(no_margins, labels) < 0.03, "over all pairs the score alone looks well"
    assert expected_calibration_error(no_margins[first], labels[first]) > 0.5
    chance = ece_of_chance(with_margins[first])
    assert chance < 0.03
    assert expected_calibration_error(with_margins[first], labels[first]) < chance + 0.03
    assert expected_calibration_error(with_margins, labels) < 0.02
    assert log_loss(with_margins, labels) < 0.5 * log_loss(no_margins, labels)
    assert fit(scores, others, labels, groups).margin_share > 0.9


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_a_known_margin_share_is_recovered(share: float) -> None:
    rng = np.random.default_rng(9)
    scores, others = rng.uniform(0, 1, (2, 20_000))
    labels = rng.random(20_000) < sigmoid(10 * (scores - share * others) - 2)
    assert fit_margin_share(scores, others, labels) == pytest.approx(share, abs=0.03)
    assert fit_margin_share(50 * scores - 9, 50 * others - 9, labels) == pytest.approx(
        fit_margin_share(scores, others, labels), abs=1e-6
    ), "it depends on the unit of the scores"


@pytest.mark.parametrize(
    "slopes", [(6.0, 4.0), (6.0, -4.0), (-6.0, 4.0), (-6.0, -4.0), (0.0, 0.0)], ids=lambda pair: f"{pair[0]},{pair[1]}"
)
def test_the_margin_share_is_that_of_a_bounded_minimisation(slopes: tuple[float, float]) -> None:
    """Against scipy's L-BFGS-B with no slope below 0, whatever the truth is."""
    rng = np.random.default_rng(10)
    scores, others = rng.uniform(0, 1, (2, 1000))
    labels = rng.random(1000) < sigmoid(slopes[0] * (scores - 0.5) + slopes[1] * (scores - others))
    positives = int(labels.sum())
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (1002 - positives))

    def loss(at: np.ndarray) -> float:
        odds = at[0] * scores + at[1] * (scores - others) + at[2]
        return float((np.logaddexp(0, odds) - targets * odds).sum())

    score, margin, _ = minimize(loss, np.ones(3), bounds=[(0, None), (0, None), (None, None)], tol=1e-12).x
    share = margin / (score + margin) if score + margin > 1e-6 else 0.0
    assert fit_margin_share(scores, others, labels) == pytest.approx(share, abs=2e-3)


def test_the_best_other_score_is_the_second_of_the_first_hit_and_the_first_of_all_others() -> None:
    falling = np.array([[0.9, 0.7, 0.7, 0.1], [0.5, 0.5, 0.2, 0.2]])
    np.testing.assert_array_equal(best_others(falling), [[0.7, 0.9, 0.9, 0.9], [0.5, 0.5, 0.5, 0.5]])
    assert np.isnan(best_others(np.array([0.9]))).all()
    assert best_others(np.array([])).shape == (0,)


def test_the_logistic_equals_scikit_learns_where_the_targets_hardly_matter() -> None:
    scores, _, labels, _ = known_logistic(50_000, seed=4)
    theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(scores[:, None], labels)
    at = np.linspace(0.1, 0.95, 40)
    np.testing.assert_allclose(fit_logistic(scores, labels)(at), theirs.predict_proba(at[:, None])[:, 1], atol=2e-3)


def test_the_logistic_does_not_depend_on_the_unit_of_the_scores() -> None:
    scores, _, labels, _ = known_logistic(3000, seed=5)
    far = fit_logistic(1000 * scores - 5000, labels)
    np.testing.assert_allclose(far(1000 * scores - 5000), fit_logistic(scores, labels)(scores), atol=1e-6)


def test_a_step_that_no_logistic_has_is_fitted_isotonically() -> None:
    rng = np.random.default_rng(6)
    scores = rng.uniform(0, 1, 8000)
    truth = np.select([scores < 0.3, scores < 0.9], [0.02, 0.4], 0.95)
    found = fit(scores, rng.uniform(0, 1, 8000), rng.random(8000) < truth, np.arange(8000) // 10)
    assert found.curve.kind == "isotonic"
    np.testing.assert_allclose(found.curve(np.array([0.15, 0.6, 0.95])), [0.02, 0.4, 0.95], atol=0.06)


labelled = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, n, elements=st.floats(-4, 1, width=32)), hnp.arrays(np.bool_, n, elements=st.booleans())
    )
)


@given(labelled)
def test_the_isotonic_curve_is_scikit_learns(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = np.round(pairs[0], 6), pairs[1]  # scikit-learn takes nearly equal scores for one
    positives = int(labels.sum())
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    oracle = IsotonicRegression(out_of_bounds="clip").fit(scores, targets)
    at = np.concatenate([scores, np.linspace(scores.min() - 1, scores.max() + 1, 50)])
    np.testing.assert_allclose(fit_isotonic(scores, labels)(at), oracle.predict(at), atol=1e-9)


@given(labelled, st.sampled_from([fit_logistic, fit_isotonic]))
@settings(max_examples=150, deadline=None)
def test_a_curve_never_falls_and_never_claims_certainty(pairs: tuple[np.ndarray, np.ndarray], fitted: Fit) -> None:
    scores, labels = pairs
    probabilities = fitted(scores, labels)(np.linspace(-6, 3, 200))
    positives = int(labels.sum())
    assert (np.diff(probabilities) >= 0).all()
    assert probabilities.min() >= 1 / (len(labels) - positives + 2) - 1e-12
    assert probabilities.max() <= (positives + 1) / (positives + 2) + 1e-12


searches = st.integers(2, 12).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, (n, 4), elements=st.floats(-4, 1, width=32)),
        hnp.arrays(np.bool_, (n, 4), elements=st.booleans()),
    )
)


@given(searches)
@settings(max_examples=30, deadline=None)
def test_on_a_page_probabilities_fall_with_the_rank(hits: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = -np.sort(-hits[0], axis=1), hits[1]
    others, groups = best_others(scores), np.repeat(np.arange(len(scores)), 4)
    curve = fit(scores.ravel(), others.ravel(), labels.ravel(), groups)
    probabilities = curve(scores, others)
    assert (np.diff(probabilities, axis=1) <= 1e-12).all()
    assert ((probabilities > 0) & (probabilities < 1)).all()
    lone = curve(scores[:, 0], best_others(scores[:, :1])[:, 0])
    np.testing.assert_array_equal(lone, curve.alone(scores[:, 0]))


@pytest.mark.parametrize("fitted", [fit_logistic, fit_isotonic])
def test_scores_that_fall_with_the_truth_give_a_level_curve(fitted: Fit) -> None:
    scores, _, labels, _ = known_logistic(2000)
    np.testing.assert_allclose(fitted(scores, ~labels)(np.array([0.0, 1.0])), (~labels).mean(), atol=0.01)


def test_a_groups_pairs_are_in_one_fold_and_folds_are_alike() -> None:
    groups = np.random.default_rng(7).integers(0, 103, 1000)
    fold_of = folds(groups)
    assert all(len(set(fold_of[groups == group].tolist())) == 1 for group in np.unique(groups))
    sizes = [len(np.unique(groups[fold_of == fold])) for fold in range(FOLDS)]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("made", [lambda n, seed: known_logistic(10 * n, seed), searches_at_many_levels])
def test_no_pair_is_judged_by_a_curve_that_has_seen_its_group(made: Callable[[int, int], Arrays]) -> None:
    """Whatever a group's labels are, its own probabilities stay the same, and those of other folds do not."""
    scores, others, labels, groups = made(60, 8)
    before = cross_fit(scores, others, labels, groups)
    for group in (17, 59):
        flipped = cross_fit(scores, others, labels ^ (groups == group), groups)
        np.testing.assert_array_equal(flipped[groups == group], before[groups == group])
        other_folds = folds(groups) != folds(groups)[groups == group][0]
        assert (flipped[other_folds] != before[other_folds]).mean() > 0.9


@pytest.mark.parametrize(
    "knots", [(), ((0.0, 0.0),), ((0.0, 0.5), (0.0, 0.6)), ((0.0, 0.5), (1.0, 0.4)), ((float("nan"), 0.5),)]
)
def test_knots_that_are_no_rising_curve_are_refused(knots: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="knots must increase"):
        Curve("isotonic", knots)


def test_a_margin_share_outside_0_and_1_is_refused() -> None:
    level = Curve("logistic", ((0.0, 0.5),))
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="margin_share must be between 0 and 1"):
            HitCurve(level, share, level)
