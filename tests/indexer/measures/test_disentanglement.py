"""MIG, DCI and probes against hand-worked cases, scikit-learn, and latents of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import mutual_info_score

from indexer.measures.disentanglement import (
    concentration,
    dci,
    disentanglement,
    equal_width,
    linear_probe,
    mig,
    mutual_information,
)
from tests.indexer.measures.factors import AXES, FACTORS, ITEMS, LABELLED, NOISE, PHOTOS, seeds

ROTATION = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2  # every unit a bit of all


codes = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=60)


importances = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.floats(0, 100))


def drawn(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A few latents and factors that have something to do with one another."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(60, 3))
    return z, {"label": rng.integers(0, 3, 60), "value": z[:, 0] + rng.normal(size=60)}


# --- mutual information gap


def test_a_gap_is_the_lead_of_the_best_unit_in_shares_of_the_entropy() -> None:
    z = np.array([[0, 0, 7], [1, 0, 7], [2, 1, 7], [3, 1, 7]], np.float32)
    figures = mig(
        z, {"both bits": np.array(["a", "b", "c", "d"]), "a bit": np.array([0, 0, 1, 1]), "odd": np.array([0, 1, 0, 1])}
    )
    # Of two bits the first unit tells two and the second one; the second bit alone is in either.
    assert figures.factors == pytest.approx({"both bits": 0.5, "a bit": 0.0, "odd": 1.0})
    assert figures.mean == pytest.approx(0.5)


def test_a_single_unit_leads_by_all_it_tells() -> None:
    assert mig(np.array([[0.0], [0.0], [1.0], [1.0]]), {"four": np.arange(4)}).mean == pytest.approx(0.5)


def test_a_continuous_factor_is_cut_into_bins_like_the_units() -> None:
    value = np.linspace(0, 1, 400)
    z = np.column_stack([value, np.zeros(400)])
    assert mig(z, {"value": value}).mean == pytest.approx(1.0)
    assert mig(z, {"value": np.arange(400)}).mean == pytest.approx(np.log(20) / np.log(400)), "labels are not cut"


@given(arrays(np.float64, st.integers(2, 50), elements=st.integers(-1000, 1000).map(float)))
def test_bins_are_those_of_a_histogram(values: np.ndarray) -> None:
    if np.ptp(values) == 0:
        assert (equal_width(values) == 0).all()
        return
    counts, _ = np.histogram(values, 20)
    assert np.bincount(equal_width(values), minlength=20).tolist() == counts.tolist()


@given(codes)
def test_mutual_information_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, np.intp).T
    assert mutual_information(a, b) == pytest.approx(mutual_info_score(a, b), abs=1e-12)
    assert mutual_information(a, b) >= 0


# --- DCI


def test_importance_in_one_place_is_concentrated_and_even_importance_is_not() -> None:
    assert concentration(np.eye(3)) == 1
    assert concentration(np.ones((2, 5))) == pytest.approx(0)


def test_units_weigh_by_their_share_of_the_importance() -> None:
    importance = np.array([[6.0, 0.0], [1.0, 1.0], [0.0, 0.0]])  # of one factor, of both alike, of none
    assert concentration(importance) == pytest.approx((6 * 1 + 2 * 0) / 8)
    h = -(6 / 7 * np.log(6 / 7) + 1 / 7 * np.log(1 / 7)) / np.log(3)  # the first factor over three units
    assert concentration(importance.T) == pytest.approx((7 * (1 - h) + 1 * 1) / 8)


@given(importances, seeds)
def test_concentration_is_a_share_whatever_the_order(importance: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = concentration(importance)
    if importance.shape[1] < 2 or importance.sum() == 0:
        assert np.isnan(found)
        return
    assert 0 <= found <= 1
    shuffled = rng.permuted(importance.copy(), axis=1)[rng.permutation(len(importance))]
    assert concentration(shuffled) == pytest.approx(found, abs=1e-9)
    assert concentration(importance * 8) == pytest.approx(found, abs=1e-9)


def test_a_forest_finds_the_units_that_matter_among_many_that_do_not() -> None:
    noisy = np.hstack([AXES + 0.01 * NOISE, np.random.default_rng(1).normal(size=(PHOTOS, 28))])
    figures = dci(noisy, LABELLED, ITEMS)
    assert figures.disentanglement > 0.8
    assert figures.completeness > 0.9


def test_a_factor_that_two_units_hold_is_completed_by_their_shares_of_its_variance() -> None:
    figures = dci(AXES, {"sum": 2 * AXES[:, 0] + AXES[:, 1]}, ITEMS)
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    assert figures.completeness == pytest.approx(1 - entropy / np.log(4), abs=0.06)


# --- all of them, on latents that are known


def test_latents_that_are_the_factors_are_disentangled() -> None:
    figures = disentanglement(AXES, LABELLED, ITEMS)
    assert figures.mig.mean > 0.8
    assert figures.dci.disentanglement > 0.95
    assert figures.dci.completeness > 0.95
    assert figures.dci.informativeness > 0.95
    assert all(figures.probes[name].score.low > 0.999 for name in ("light", "angle", "size"))
    assert figures.probes["hue"].score.low > figures.probes["hue"].chance + 0.3


def test_a_rotation_entangles_them_and_takes_no_information_away() -> None:
    aligned, rotated = (disentanglement(z, FACTORS, ITEMS) for z in (AXES, AXES @ ROTATION))
    assert rotated.mig.mean < 0.1 < aligned.mig.mean
    assert rotated.dci.disentanglement < 0.2
    assert rotated.dci.completeness < 0.2
    assert rotated.dci.informativeness > aligned.dci.informativeness - 0.25
    for name in FACTORS:
        assert rotated.probes[name].score.value == pytest.approx(aligned.probes[name].score.value, abs=1e-6)


def test_noise_tells_nothing() -> None:
    figures = disentanglement(NOISE, LABELLED, ITEMS)
    assert figures.mig.mean < 0.05
    assert figures.dci.disentanglement < 0.1
    assert figures.dci.completeness < 0.1
    assert figures.dci.factors["light"] < 0.1
    for name, probe in figures.probes.items():
        assert abs(probe.score.value - probe.chance) < 0.1, name


def test_a_unit_that_holds_two_factors_lowers_disentanglement_and_not_completeness() -> None:
    shared = np.column_stack([np.floor(4 * AXES[:, 0]) + (AXES[:, 1] + 1) / 4, AXES[:, 2]])
    both = {"light": np.floor(4 * AXES[:, 0]), "fine": np.floor(4 * AXES[:, 0]) + AXES[:, 1] / 10, "size": AXES[:, 2]}
    figures = dci(shared, both, ITEMS)
    assert figures.completeness > 0.95
    assert figures.disentanglement < 0.8


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seeds)
def test_gaps_and_importances_are_shares_and_scores_at_most_one(seed: int) -> None:
    z, factors = drawn(seed)
    figures = disentanglement(z, factors, np.arange(60) // 3, seed=seed)
    shares = [figures.mig.mean, *figures.mig.factors.values(), figures.dci.disentanglement, figures.dci.completeness]
    assert all(0 <= share <= 1 for share in shares)
    assert all(score <= 1 for score in figures.dci.factors.values())
    assert 0 <= figures.probes["label"].score.low <= figures.probes["label"].score.high <= 1
    assert 1 / 3 <= figures.probes["label"].chance <= 1
    for probe in figures.probes.values():
        assert probe.score.low <= probe.score.value <= probe.score.high <= 1


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seeds)
def test_the_order_and_the_scale_of_units_do_not_matter(seed: int) -> None:
    z, factors = drawn(seed)
    groups = np.arange(60) // 3
    other = z[:, [2, 0, 1]] * [8, 0.25, 1]  # powers of two, so that nothing is rounded into another bin
    assert mig(other, factors).factors == pytest.approx(mig(z, factors).factors)
    for factor in factors.values():
        before, after = linear_probe(z, factor, groups), linear_probe(other, factor, groups)
        assert after.score.value == pytest.approx(before.score.value, abs=1e-6)


def test_forests_do_not_mind_the_order_and_the_scale_of_units() -> None:
    z = AXES @ ROTATION + 2 * AXES
    before, after = (dci(units, LABELLED, ITEMS) for units in (z, z[:, [2, 3, 0, 1]] * [8, 0.25, 1, -2]))
    # Not to the last digit, since equally good splits are chosen between at random.
    assert after[:3] == pytest.approx(before[:3], abs=0.03)
    assert 0.2 < before.disentanglement < 0.9
