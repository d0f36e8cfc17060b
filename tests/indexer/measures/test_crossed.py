"""Bounds over products and backgrounds against formulas, and against truths that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from indexer.measures.crossed import (
    Pigeonhole,
    Spread,
    by_group,
    crossed_bound,
    detectable_gain,
    detectable_loss,
    loss_bound,
    loss_size,
    mean_squares,
    spread,
)
from indexer.measures.metrics import Bootstrap

TRIALS = 400


def drawn(rng: np.random.Generator, of: Spread, products: int, backgrounds: int, mean: float = 0.0) -> np.ndarray:
    rows = rng.normal(0, of.product, (products, 1)) + rng.normal(0, of.background, backgrounds)
    return mean + rows + rng.normal(0, of.interaction, (products, backgrounds))


def at_most(level: float, trials: int = TRIALS) -> float:
    """The share that is hardly ever exceeded by chance: three standard errors above."""
    return level + 3 * float(np.sqrt(level * (1 - level) / trials))


def test_the_sums_of_squares_add_up_to_the_total_one() -> None:
    table = np.random.default_rng(0).normal(size=(7, 4))
    squares = mean_squares(table)
    parts = zip((squares.products, squares.backgrounds, squares.interaction), squares.freedom, strict=True)
    assert sum(square * freedom for square, freedom in parts) == pytest.approx(np.square(table - table.mean()).sum())
    assert squares.freedom == (6, 3, 18)


def test_mean_squares_are_those_of_a_table_worked_by_hand() -> None:
    squares = mean_squares(np.array([[1.0, 2.0], [3.0, 8.0]]))
    assert squares[:3] == pytest.approx((16.0, 9.0, 4.0))


def test_the_spread_is_found_that_a_large_table_was_drawn_with() -> None:
    of = Spread(0.2, 0.3, 0.5)
    found = spread(drawn(np.random.default_rng(1), of, 800, 800))
    assert found == pytest.approx(of, rel=0.1)


def test_without_backgrounds_that_differ_the_bound_is_that_of_students_t() -> None:
    values = np.random.default_rng(2).normal(0.1, 0.3, 30)
    found = crossed_bound(np.repeat(values[:, None], 8, axis=1), 0.95)
    error = values.std(ddof=1) / np.sqrt(30)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - stats.t.ppf(0.95, 29) * error)


def test_products_and_backgrounds_count_alike() -> None:
    table = drawn(np.random.default_rng(3), Spread(0.2, 0.3, 0.5), 12, 9, 0.2)
    assert crossed_bound(table, 0.99) == pytest.approx(crossed_bound(table.T, 0.99))


@pytest.mark.parametrize("shape", [(1, 20), (20, 1)])
def test_of_one_product_or_background_nothing_is_told(shape: tuple[int, int]) -> None:
    found = crossed_bound(np.ones(shape), 0.95)
    assert found.mean == 1 and np.isnan(found.low)


def test_a_table_without_differences_is_bounded_by_itself() -> None:
    assert crossed_bound(np.zeros((20, 20)), 0.95) == (0, 0)


@pytest.mark.parametrize(
    "of", [Spread(0.2, 0.06, 0.4), Spread(0.05, 0.2, 0.4), Spread(0, 0, 0.4), Spread(0.3, 0, 0)], ids=str
)
@pytest.mark.parametrize(("products", "backgrounds"), [(20, 5), (60, 20)])
@pytest.mark.parametrize("level", [0.05, 0.005])
def test_the_bound_is_above_the_mean_as_seldom_as_it_says(
    of: Spread, products: int, backgrounds: int, level: float
) -> None:
    rng = np.random.default_rng(4)
    above = sum(crossed_bound(drawn(rng, of, products, backgrounds), 1 - level).low > 0 for _ in range(TRIALS))
    assert above / TRIALS <= at_most(level)


def test_resampling_products_alone_is_above_it_far_more_often() -> None:
    """The previous rule of the gate: if backgrounds differ, its bound is above 0 in a third of cases."""
    rng, of = np.random.default_rng(5), Spread(0.1, 0.2, 0.4)
    bootstrap = Bootstrap([f"item {n:03d}" for n in range(200)], replicates=1000)
    old, new = 0, 0
    for _ in range(TRIALS):
        table = drawn(rng, of, 200, 5)
        old += bootstrap.lower_bound(table.mean(axis=1), 0.95) > 0
        new += crossed_bound(table, 0.95).low > 0
    assert new / TRIALS <= at_most(0.05) < 0.2 < old / TRIALS


def test_a_gain_that_is_said_to_be_detectable_is_found_four_times_in_five() -> None:
    of = Spread(0.2, 0.06, 0.4)
    gain = detectable_gain(of, 60, 20, 0.975)
    rng = np.random.default_rng(6)
    found = sum(crossed_bound(drawn(rng, of, 60, 20, gain), 0.975).low > 0 for _ in range(TRIALS))
    assert found / TRIALS == pytest.approx(0.8, abs=0.07)
    assert detectable_gain(of, 240, 20, 0.975) < gain < detectable_gain(of, 60, 5, 0.975)
    assert detectable_gain(of, 60, 20, 0.9975) > gain


# --- losses


def test_no_difference_at_all_rules_out_what_so_few_products_can() -> None:
    """The score equation by hand, with s = 1: m^2 = t^2 / I m (1 - m)."""
    for count in (20, 60, 500):
        share = stats.t.ppf(0.95, count - 1) ** 2 / count
        assert loss_bound(np.zeros(count), 0.95).low == pytest.approx(-share / (1 + share))


def test_the_bound_of_a_loss_solves_its_equation() -> None:
    values = np.zeros(80)
    values[:3], values[3] = -0.5, 0.25
    low = loss_bound(values, 0.975).low
    size = loss_size(values)
    assert size == pytest.approx((3 * 0.25 + 0.0625 + 1) / (1.75 + 1))
    error = np.sqrt(-low * (size + low) / 80)
    assert values.var(ddof=1) < -low * (size + low)
    assert (values.mean() - low) / error == pytest.approx(stats.t.ppf(0.975, 79))


def test_where_differences_are_common_the_bound_is_that_of_students_t() -> None:
    values = np.random.default_rng(7).choice([-0.5, 0.5], 200)
    error = values.std(ddof=1) / np.sqrt(200)
    assert loss_bound(values, 0.95).low == pytest.approx(values.mean() - stats.t.ppf(0.95, 199) * error)


def test_of_a_single_product_no_loss_is_ruled_out() -> None:
    assert np.isnan(loss_bound(np.zeros(1), 0.95).low)
    assert loss_bound(-np.ones(5), 0.95).low == -1


@pytest.mark.parametrize("count", [20, 60, 200])
@pytest.mark.parametrize("level", [0.05, 0.005])
def test_a_candidate_that_loses_whole_items_seldom_passes(count: int, level: float) -> None:
    """One item in ten is lost completely. Student's t alone accepts that if none of these items was drawn."""
    rng, margin = np.random.default_rng(8), 0.1
    passed, by_t = 0, 0
    for _ in range(TRIALS):
        values = -(rng.random(count) < margin).astype(float)
        passed += loss_bound(values, 1 - level).low > -margin
        by_t += values.mean() - stats.t.ppf(1 - level, count - 1) * values.std(ddof=1) / np.sqrt(count) > -margin
    assert passed / TRIALS <= at_most(level)
    if count == 20:
        assert by_t / TRIALS > at_most(level)


def test_a_margin_that_is_said_to_be_detectable_lets_equals_pass_four_times_in_five() -> None:
    """Differences of a quarter on one item in ten, as often for the worse as for the better."""
    rng = np.random.default_rng(9)

    def values() -> np.ndarray:
        return 0.5 * rng.choice([-1, 0, 1], 100, p=[0.1, 0.8, 0.1])

    margin = detectable_loss(float(np.sqrt(0.2 * 0.25)), 0.5, 100, 0.975)
    passed = sum(loss_bound(values(), 0.975).low > -margin for _ in range(TRIALS))
    assert passed / TRIALS == pytest.approx(0.8, abs=0.08)
    assert detectable_loss(0.2, 0.5, 100, 0.9975) > detectable_loss(0.2, 0.5, 100, 0.975)
    assert detectable_loss(0.2, 0.5, 2, 0.975) == 1


# --- the pigeonhole bootstrap


def test_resampled_means_vary_as_owen_says() -> None:
    """By both axes' own variance and three times the interaction's, but for what a finite sample takes off."""
    table = drawn(np.random.default_rng(10), Spread(0.3, 0.2, 0.6), 60, 20)
    squares = mean_squares(table)
    first, second, both = (value * freedom for value, freedom in zip(squares[:3], squares.freedom, strict=True))
    expected = (first / 60 + second / 20 + both / 1200) / 1200
    found = Pigeonhole(60, 20, replicates=20_000).means(table).var()
    assert found == pytest.approx(expected, rel=0.05)


def test_its_interval_covers_the_mean_and_holds_the_average() -> None:
    rng, of = np.random.default_rng(11), Spread(0.2, 0.1, 0.4)
    bootstrap = Pigeonhole(60, 20, replicates=400)
    covered = 0
    for _ in range(200):
        table = drawn(rng, of, 60, 20)
        interval = bootstrap.interval(table)
        assert interval.low < table.mean() < interval.high and interval.value == pytest.approx(table.mean())
        covered += interval.low < 0 < interval.high
    assert covered / 200 >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 200)


def test_a_ratio_is_exact_where_one_is_a_multiple_of_the_other() -> None:
    base = np.random.default_rng(12).uniform(0.2, 1, 30)
    found = Pigeonhole(30, 4).ratio(np.repeat(0.5 * base[:, None], 4, axis=1), base)
    assert found == pytest.approx((0.5, 0.5, 0.5))
    assert np.isnan(Pigeonhole(30, 4).ratio(np.zeros((30, 4)), np.zeros(30)).value)


def test_the_same_seed_draws_the_same_resamples() -> None:
    table = np.random.default_rng(13).normal(size=(9, 5))
    one, again, other = (Pigeonhole(9, 5, seed=seed).interval(table) for seed in (1, 1, 2))
    assert one == again != other


def test_rows_and_columns_of_a_group_are_averaged() -> None:
    table = np.array([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0], [0.0, 0.0, 9.0]])
    names, rows = by_group(table, ["b", "a", "b"], 0)
    assert names == ["a", "b"]
    np.testing.assert_array_equal(rows, [[5, 6, 7], [0.5, 1, 6]])
    np.testing.assert_array_equal(by_group(table, ["x", "y", "x"], 1)[1], [[2, 2], [6, 6], [4.5, 0]])
    np.testing.assert_array_equal(by_group(np.array([1.0, 3.0]), ["x", "x"], 0)[1], [2])
