"""Intervals of means in [0, 1]: against SciPy's exact ones, at the ends of the scale, and by how often they hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from indexer.measures.metrics import Bootstrap


def over(count: int, replicates: int = 1000) -> Bootstrap:
    return Bootstrap([f"{n:04d}" for n in range(count)], replicates=replicates)


@pytest.mark.parametrize(("right", "count"), [(0, 20), (1, 20), (13, 20), (19, 20), (231, 231), (1, 1)])
def test_of_yes_or_no_it_is_the_exact_binomial_interval(right: int, count: int) -> None:
    values = (np.arange(count) < right).astype(float)
    theirs = stats.binomtest(right, count).proportion_ci(method="exact")
    assert over(count).share(values) == pytest.approx((right / count, theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize("end", [0.0, 1.0])
@pytest.mark.parametrize("count", [2, 20, 231])
def test_no_interval_is_a_single_point(end: float, count: int) -> None:
    """A rule of three: what happens to one in n / 3 may well not be seen among n."""
    values, bootstrap = np.full(count, end), over(count)
    share = bootstrap.share(values)
    assert share.low <= end <= share.high
    assert 1.5 / count < share.high - share.low < 5 / count
    same = bootstrap.difference(values, values)
    assert same.value == 0 and same.low < 0 < same.high
    if end:
        kept = bootstrap.retention(values, values)
        assert kept.value == 1 and kept.low < 1 < kept.high


def test_near_the_ceiling_the_truth_is_inside_as_often_as_it_says() -> None:
    """The percentiles of resampled means hold a true .98 in about a third of all samples of 20."""
    rng, bootstrap, trials = np.random.default_rng(0), over(20), 400
    samples = (rng.random((trials, 20)) < 0.98).astype(float)
    held = {
        name: sum(low <= 0.98 <= high for _, low, high in map(interval, samples)) / trials
        for name, interval in (("percentiles", bootstrap.interval), ("exact", bootstrap.share))
    }
    assert held["percentiles"] < 0.45
    assert held["exact"] >= 0.94


def test_between_the_ends_values_that_vary_little_have_a_narrow_interval() -> None:
    rng, bootstrap, trials = np.random.default_rng(1), over(60), 300
    samples = rng.beta(8 * 0.6, 8 * 0.4, (trials, 60))
    found = np.array([bootstrap.share(row) for row in samples])
    held = ((found[:, 1] <= 0.6) & (found[:, 2] >= 0.6)).mean()
    assert 0.93 <= held <= 0.995
    exact = stats.binomtest(36, 60).proportion_ci(method="exact")
    assert (found[:, 2] - found[:, 1]).mean() < 0.5 * (exact.high - exact.low)


def test_differences_and_ratios_of_rare_failures_hold_the_truth() -> None:
    rng, bootstrap, trials = np.random.default_rng(2), over(60, 500), 200
    chance = rng.random((trials, 60))
    values, base = (chance >= 0.02).astype(float), ((chance < 0.02) | (chance >= 0.03)).astype(float)
    truths = {"difference": -0.01, "retention": 0.98 / 0.99}
    for name, truth in truths.items():
        found = np.array([getattr(bootstrap, name)(*rows) for rows in zip(values, base, strict=True)])
        assert ((found[:, 1] <= truth) & (found[:, 2] >= truth)).mean() >= 0.94
    plain = np.array([bootstrap.interval(row) for row in values - base])
    assert ((plain[:, 1] <= -0.01) & (plain[:, 2] >= -0.01)).mean() < 0.9


def test_several_queries_of_an_item_say_no_more_than_one() -> None:
    rng = np.random.default_rng(3)
    by_item = rng.integers(0, 2, 30).astype(float)
    names = [f"{n:02d}" for n in range(30)]
    alone, often = Bootstrap(names), Bootstrap(list(np.repeat(names, 7)))
    assert often.share(np.repeat(by_item, 7)) == pytest.approx(alone.share(by_item))
    other = np.flip(by_item).copy()
    for name in ("difference", "retention"):
        together = getattr(often, name)(np.repeat(by_item, 7), np.repeat(other, 7))
        assert together == pytest.approx(getattr(alone, name)(by_item, other))


def test_items_with_unequal_numbers_of_queries_are_held_as_often() -> None:
    """Items of 1 to 12 queries, right or wrong together: a mean over queries has the truth of the items."""
    rng, trials, held = np.random.default_rng(4), 300, 0
    for _ in range(trials):
        sizes = rng.integers(1, 13, 40)
        right = rng.random(40) < 0.8
        items = [f"{n:02d}" for n in np.repeat(np.arange(40), sizes)]
        interval = Bootstrap(items).share(np.repeat(right, sizes).astype(float))
        held += interval.low <= 0.8 <= interval.high
    assert 0.9 <= held / trials <= 0.99


def test_values_outside_the_scale_are_refused_and_nan_takes_no_part() -> None:
    bootstrap = over(4)
    with pytest.raises(ValueError, match=r"values must be in \[0, 1\], not 1.5"):
        bootstrap.share(np.array([0.1, 1.5, 0.2, 0.3]))
    values = np.array([1.0, np.nan, 0.0, 1.0])
    assert bootstrap.share(values) == pytest.approx(over(3).share(values[[0, 2, 3]]))
    nothing = np.full(4, np.nan)
    assert all(np.isnan(of).all() for of in (bootstrap.share(nothing), bootstrap.difference(values, nothing)))
    assert np.isnan(bootstrap.retention(values, np.zeros(4))).all()
