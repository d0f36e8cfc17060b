"""Paired tests against SciPy, every exchange counted out, a worked example, and chance itself."""

from __future__ import annotations

from itertools import product

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from indexer.measures.metrics import Bootstrap
from indexer.measures.significance import holm, paired_test

LEVELS = st.lists(st.integers(-3, 3), min_size=2, max_size=9)


def over(count: int, replicates: int = 50) -> Bootstrap:
    return Bootstrap([f"item {n:03d}" for n in range(count)], replicates=replicates)


def counted(difference: np.ndarray) -> float:
    """Share of all ways to exchange the two encoders that give as large a sum."""
    sums = [abs(np.dot(signs, difference)) for signs in product((-1, 1), repeat=len(difference))]
    return float(np.mean([each >= abs(difference.sum()) - 1e-9 for each in sums]))


@hypothesis.settings(max_examples=30, deadline=None)
@given(LEVELS)
def test_p_is_the_share_of_all_exchanges_that_give_as_much(levels: list[int]) -> None:
    """In tenths, which are no binary numbers: sums that are equal but for rounding count as equal."""
    difference = np.array(levels) / 10
    truth = counted(difference)
    found = paired_test(difference, np.zeros(len(levels)), over(len(levels)))
    assert found.p == pytest.approx(truth, abs=4 * np.sqrt(truth * (1 - truth) / 9999) + 2e-4)
    assert found.difference.value == pytest.approx(difference.mean())


@pytest.mark.parametrize("gain", [0.0, 0.05, 0.15])
def test_p_equals_that_of_scipy(gain: float) -> None:
    rng = np.random.default_rng(4)
    base = rng.random(40)
    values = base + rng.normal(gain, 0.3, 40)
    theirs = stats.permutation_test(
        (values, base), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=9999, rng=np.random.default_rng(1),
    )  # fmt: skip
    assert paired_test(values, base, over(40)).p == pytest.approx(theirs.pvalue, abs=0.02)
    swapped = paired_test(base, values, over(40))
    assert swapped.p == paired_test(values, base, over(40)).p, "it is two-sided"
    assert swapped.difference.value == pytest.approx(-np.mean(values - base))


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9 / 3])
def test_p_does_not_depend_on_the_unit(unit: float) -> None:
    """Many exchanges give the same sum again, which is rounded otherwise in another order."""
    rng = np.random.default_rng(0)
    levels = rng.integers(-3, 5, 60)
    found = paired_test(unit * levels / 10, np.zeros(60), over(60))
    assert found.p == paired_test(levels.astype(float), np.zeros(60), over(60)).p


def test_identical_encoders_differ_by_nothing_for_sure() -> None:
    values = np.random.default_rng(0).random(30)
    assert paired_test(values, values.copy(), over(30)) == ((0, 0, 0), 1)


def test_a_difference_on_every_item_is_as_sure_as_can_be_told() -> None:
    found = paired_test(np.full(40, 0.5), np.full(40, 0.25), over(40))
    assert found.difference == (0.25, 0.25, 0.25)
    assert found.p == pytest.approx(1e-4)
    assert found.to_json() == {"value": 0.25, "ci": [0.25, 0.25], "p": found.p}


def test_items_that_either_lacks_take_no_part() -> None:
    values, base = np.array([0.5, 0.6, np.nan, 0.9, 0.7]), np.array([0.1, np.nan, 0.3, 0.2, 0.6])
    both = [0, 3, 4]
    found = paired_test(values, base, over(5))
    assert found.difference.value == pytest.approx((values - base)[both].mean())
    assert found.p == pytest.approx(paired_test(values[both], base[both], over(3)).p)
    assert found.p == pytest.approx(0.25, abs=0.02), "of three gains two exchanges of eight are as far from none"
    nothing = paired_test(np.full(5, np.nan), base, over(5))
    assert np.isnan(nothing.p) and np.isnan(nothing.difference.value)


def test_encoders_that_are_alike_are_called_different_one_time_in_twenty() -> None:
    """And p is even between 0 and 1."""
    trials = 400
    p = np.empty(trials)
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        difficulty = rng.random(25)
        one, other = (np.clip(difficulty + rng.normal(0, 0.2, 25), 0, 1) for _ in range(2))
        p[trial] = paired_test(one, other, over(25, replicates=2), seed=trial).p
    assert 0.025 <= (p <= 0.05).mean() <= 0.085
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_a_real_gain_is_found_more_often_on_more_items() -> None:
    found = []
    for items in (10, 80):
        p = []
        for trial in range(40):
            rng = np.random.default_rng(trial)
            base = rng.random(items)
            p.append(paired_test(base + rng.normal(0.1, 0.25, items), base, over(items, replicates=2)).p)
        found.append(float((np.array(p) < 0.05).mean()))
    assert found[0] < 0.5 and found[1] > 0.8


def test_holm_worked_by_hand() -> None:
    """Sorted .005 .01 .03 .04 are multiplied by 4 3 2 1: .02 .03 .06 .04, and none is below one before it."""
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(found) == ["a", "b", "c", "d"]


def test_holm_leaves_out_what_is_unknown() -> None:
    found = holm({"a": float("nan"), "b": 0.02, "c": 0.6})
    assert np.isnan(found.pop("a"))
    assert found == pytest.approx({"b": 0.04, "c": 0.6})
    assert holm({"a": 0.7, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
    assert holm({"one": 0.03}) == {"one": 0.03}


@hypothesis.settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lets_none_pass_that_bonferroni_forbids_first_and_keeps_the_order(p: list[float]) -> None:
    found = holm({str(n): value for n, value in enumerate(p)})
    for n, value in enumerate(p):
        assert value <= found[str(n)] <= min(1.0, value * len(p))
    adjusted = [found[str(n)] for n in np.argsort(p, kind="stable")]
    assert adjusted == sorted(adjusted)
    assert found[str(int(np.argmin(p)))] == pytest.approx(min(1.0, min(p) * len(p)))
