"""Variance components: against the textbook's mean squares, by simulation, and whatever the axes are."""

from __future__ import annotations

from itertools import combinations

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.measures.variance import INTERACTION, variance_shares

NAMES = ("item", "background")


def values(shares: dict) -> dict[str, float]:
    return {name: share.value for name, share in shares.items()}


def test_shares_worked_by_hand() -> None:
    """Two items on two backgrounds, one number each: 0 1 and 3 4.

    Mean squares: item 2 (1.5^2 + 1.5^2) = 9, background 2 (0.5^2 + 0.5^2) = 1, interaction 0. So 9 / 2, 1 / 2 and 0.
    """
    found = variance_shares(np.array([[[0.0], [1.0]], [[3.0], [4.0]]]), NAMES, replicates=10)
    assert values(found) == pytest.approx({"item": 0.9, "background": 0.1, "interaction": 0.0})
    crossed = variance_shares(np.array([[[1.0], [-1.0]], [[-1.0], [1.0]]]), NAMES, replicates=10)
    assert values(crossed) == pytest.approx({"item": 0, "background": 0, "interaction": 1})


def test_shares_equal_those_of_the_mean_squares() -> None:
    """Searle et al. 1992, section 4.3: sigma^2_a = (MS_a - MS_ab) / n_b, sigma^2_b = (MS_b - MS_ab) / n_a."""
    rng = np.random.default_rng(0)
    a, b, dim = 9, 4, 3
    z = 50 + 2 * rng.normal(size=(a, 1, dim)) + rng.normal(size=(1, b, dim)) + rng.normal(size=(a, b, dim))
    mean = z.mean(axis=(0, 1))
    of_a, of_b = z.mean(axis=1) - mean, z.mean(axis=0) - mean
    rest = z - mean - of_a[:, None] - of_b[None]
    ms_a, ms_b = b * np.square(of_a).sum() / (a - 1), a * np.square(of_b).sum() / (b - 1)
    ms_ab = np.square(rest).sum() / ((a - 1) * (b - 1))
    parts = np.array([(ms_a - ms_ab) / b, (ms_b - ms_ab) / a, ms_ab])
    found = variance_shares(z, NAMES, replicates=10)
    assert list(values(found).values()) == pytest.approx(parts / parts.sum())


def test_a_half_is_a_half_with_five_backgrounds_where_sums_of_squares_say_more() -> None:
    components, squares = [], []
    for trial in range(60):
        rng = np.random.default_rng(trial)
        z = (
            np.sqrt(0.5) * rng.normal(size=(60, 1, 16))
            + np.sqrt(0.3) * rng.normal(size=(1, 5, 16))
            + np.sqrt(0.2) * rng.normal(size=(60, 5, 16))
        )
        components.append(list(values(variance_shares(z, NAMES, replicates=2)).values()))
        centred = z - z.mean(axis=(0, 1))
        squares.append(np.square(centred.mean(axis=1)).sum() * 5 / np.square(centred).sum())
    assert np.mean(components, axis=0) == pytest.approx([0.5, 0.3, 0.2], abs=0.015)
    assert np.mean(squares) > 0.57


def test_components_of_four_factors_and_of_their_interactions_are_told_apart() -> None:
    """An item that looks otherwise from every side is no share of the item: item x pose counts as interaction."""
    found = []
    for trial in range(30):
        rng = np.random.default_rng(trial)
        z = (
            np.sqrt(0.4) * rng.normal(size=(16, 1, 1, 1, 32))
            + np.sqrt(0.2) * rng.normal(size=(1, 4, 1, 1, 32))
            + np.sqrt(0.3) * rng.normal(size=(16, 1, 3, 1, 32))
            + np.sqrt(0.1) * rng.normal(size=(16, 4, 3, 3, 32))
        )
        found.append(values(variance_shares(z, ("item", "background", "pose", "light"), replicates=2)))
    means = {name: np.mean([each[name] for each in found]) for name in found[0]}
    truth = {"item": 0.4, "background": 0.2, "pose": 0.0, "light": 0.0, INTERACTION: 0.4}
    assert means == pytest.approx(truth, abs=0.02)


@pytest.mark.parametrize("shape", [(5, 3, 4, 2), (4, 2, 3, 2, 2)])
def test_components_equal_a_loop_over_pairs(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(shape))
    axes = len(shape) - 1
    factors = ("item", "background", "pose", "light")[:axes]
    z = rng.normal(size=shape) + 3 * rng.normal(size=(shape[0], *[1] * (axes - 1), shape[-1])) + 5.0
    centred, cells = z - z.mean(axis=tuple(range(axes))), list(np.ndindex(shape[:-1]))
    products: dict[tuple[int, ...], list[float]] = {
        same: [] for count in range(axes + 1) for same in combinations(range(axes), count)
    }
    for one in cells:
        for other in cells:
            same = tuple(axis for axis in range(axes) if one[axis] == other[axis])
            products[same].append(float(centred[one] @ centred[other]))
    agree = {same: np.mean(found) for same, found in products.items()}
    parts = [agree[(axis,)] - agree[()] for axis in range(axes)]
    expected = np.maximum([*parts, agree[tuple(range(axes))] - agree[()] - sum(parts)], 0)
    found = variance_shares(z, factors, replicates=10)
    assert list(found) == [*factors, INTERACTION]
    assert list(values(found).values()) == pytest.approx(list(expected / expected.sum()))


latents = hnp.arrays(np.float64, (6, 3, 4), elements=st.integers(-8, 8).map(float))


@hypothesis.settings(max_examples=60, deadline=None)
@given(latents, st.integers(0, 1000), st.floats(0.01, 100))
def test_shares_are_parts_of_one_and_the_same_wherever_the_axes_lie(z: np.ndarray, seed: int, scale: float) -> None:
    found = variance_shares(z, NAMES, replicates=20)
    hypothesis.assume(np.ptp(z.reshape(-1, 4), axis=0).any())
    assert sum(share.value for share in found.values()) == pytest.approx(1)
    for share in found.values():
        assert 0 <= share.low <= share.high <= 1 and 0 <= share.value <= 1
    rng = np.random.default_rng(seed)
    turned = scale * (z @ np.linalg.qr(rng.normal(size=(4, 4)))[0]) + rng.normal(size=4)
    assert values(variance_shares(turned, NAMES, replicates=20)) == pytest.approx(values(found), abs=1e-6)


def test_intervals_of_shares_cover_those_of_all_items_as_often_as_they_say() -> None:
    """Variance 1 of the items; of two backgrounds at +-0.71 the variance is 1 as well."""
    covered = np.zeros(2)
    for trial in range(200):
        rng = np.random.default_rng(trial)
        z = rng.normal(size=(60, 1, 1)) + np.array([-1, 1])[None, :, None] * np.sqrt(0.5)
        found = variance_shares(z, NAMES, replicates=400, seed=trial)
        for place, name in enumerate(NAMES):
            assert found[name].low <= found[name].value <= found[name].high
            covered[place] += found[name].low <= 0.5 <= found[name].high
    assert (covered / 200 >= 0.88).all() and (covered / 200 <= 0.99).all()


def test_an_encoder_that_sees_no_background_at_all_has_no_interval_of_a_single_point() -> None:
    z = np.repeat(np.random.default_rng(0).normal(size=(40, 1, 8)), 5, axis=1)
    found = variance_shares(z, NAMES)
    assert found["item"].value == pytest.approx(1) and found["background"].value == pytest.approx(0, abs=1e-9)
    assert 0.8 < found["item"].low < 0.95 and 0.05 < found["background"].high < 0.2


@pytest.mark.parametrize("shape", [(1, 3, 2), (3, 1, 2), (3, 2)])
def test_shares_need_two_values_of_every_factor(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two or more values for each of item, background"):
        variance_shares(np.zeros(shape), NAMES)
