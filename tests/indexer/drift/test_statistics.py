"""Drift statistics on arrays that are made for it: shifts are found, resamples and trifles are not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from indexer.drift.statistics import (
    ALPHA,
    Shift,
    flag_drift,
    gaussian_kl,
    kl_test,
    nearest_other,
    one_photo_each,
    shift_of,
    shrunk_covariance,
    surprise,
)
from indexer.vectors import Floats

NOT_OURS = -1


def blobs(rng: np.random.Generator, count: int, dim: int = 24) -> Floats:
    """A catalogue of five kinds, in a few directions of many: unit vectors `(count, dim)`."""
    kinds = np.random.default_rng(7).standard_normal((5, dim))
    spread = np.linspace(1.0, 0.2, dim)
    vectors = 2 * kinds[rng.integers(5, size=count)] + spread * rng.standard_normal((count, dim))
    return unit(vectors)


def unit(vectors: NDArray[np.floating]) -> Floats:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def measured(reference: Floats, others: Floats, rng: np.random.Generator) -> dict[str, Shift]:
    items = np.arange(len(reference))
    own = np.full(len(others), NOT_OURS)
    distances = nearest_other(reference, items, reference, items, "cosine")
    of_others = nearest_other(others, own, reference, items, "cosine")
    return flag_drift(
        {"nearest": shift_of(distances, of_others), "surprise": shift_of(*surprise(reference, others, rng))}
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_resampled_catalogue_stays_quiet(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = measured(blobs(rng, 200), blobs(rng, 60), rng)
    assert not any(shift.drifted for shift in found.values())


@pytest.mark.parametrize("seed", range(5))
def test_vectors_moved_out_of_the_catalogues_range_are_flagged(seed: int) -> None:
    rng = np.random.default_rng(seed)
    moved = unit(blobs(rng, 60) + 0.3 * np.eye(24)[23])
    found = measured(blobs(rng, 200), moved, rng)
    assert found["nearest"].drifted
    assert found["surprise"].drifted
    assert found["surprise"].auc > 0.7


def test_a_new_kind_between_the_old_ones_is_flagged_though_it_lies_near_the_mean() -> None:
    """The new kind is typical in the directions in which the catalogue varies, and differs in another direction."""
    rng = np.random.default_rng(0)
    known = np.concatenate([3 * rng.standard_normal((200, 4)), 0.1 * rng.standard_normal((200, 20))], axis=1)
    new = np.concatenate([0.5 * rng.standard_normal((40, 4)), 0.1 * rng.standard_normal((40, 20)) + 0.3], axis=1)
    found = flag_drift({"surprise": shift_of(*surprise(known.astype(np.float32), new.astype(np.float32), rng))})
    assert found["surprise"].drifted


def test_a_shift_too_small_to_matter_stays_quiet_in_however_large_a_sample() -> None:
    rng = np.random.default_rng(0)
    reference, values = rng.standard_normal(20_000), rng.standard_normal(20_000) + 0.1
    found = flag_drift({"error": shift_of(reference, values)})["error"]
    assert found.adjusted < ALPHA
    assert 0.5 < found.auc < 0.55
    assert not found.drifted


def test_a_large_shift_that_may_be_chance_stays_quiet() -> None:
    rng = np.random.default_rng(0)
    found = flag_drift({"error": shift_of(rng.standard_normal(200), rng.standard_normal(4) + 1)})["error"]
    assert found.auc > 0.6
    assert found.adjusted > ALPHA
    assert not found.drifted


def test_photos_nearer_and_likelier_than_the_catalogues_are_no_drift() -> None:
    rng = np.random.default_rng(0)
    found = flag_drift({"error": shift_of(rng.standard_normal(200), rng.standard_normal(200) - 2)})["error"]
    assert found.auc < 0.1
    assert not found.drifted


def test_p_values_are_adjusted_for_all_measures_together() -> None:
    rng = np.random.default_rng(0)
    shift = shift_of(rng.standard_normal(100), rng.standard_normal(100) + 0.55)
    assert flag_drift({"one": shift})["one"].drifted
    many = {str(n): shift_of(rng.standard_normal(100), rng.standard_normal(100)) for n in range(40)}
    found = flag_drift({"one": shift, **many})["one"]
    assert found.adjusted == pytest.approx(41 * shift.p)
    assert found.auc == shift.auc
    assert not found.drifted


def test_a_shift_worked_by_hand() -> None:
    """Of 3 x 2 pairs, 4 lie above and one is even: (4 + 0.5) / 6."""
    found = shift_of(np.array([1.0, 2.0, 4.0]), np.array([2.0, 5.0]))
    assert found.auc == pytest.approx(4.5 / 6)
    assert (found.median, found.reference_median, found.ratio) == (3.5, 2.0, 1.75)
    assert found.above == 0.5


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_the_nearest_other_item_is_that_of_brute_force(metric: str) -> None:
    rng = np.random.default_rng(1)
    gallery = rng.standard_normal((30, 6)).astype(np.float32)
    if metric == "cosine":
        gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    items = np.arange(30) // 3
    found = nearest_other(gallery, items, gallery, items, "cosine" if metric == "cosine" else "l2")
    for place, vector in enumerate(gallery):
        others = gallery[items != items[place]]
        apart = 1 - others @ vector if metric == "cosine" else np.linalg.norm(others - vector, axis=1)
        assert found[place] == pytest.approx(apart.min(), abs=1e-3)


def test_one_photo_of_each_item_is_taken_and_no_more_items_than_allowed() -> None:
    items = np.array(["b", "a", "b", "c", "a", "b"])
    taken = [one_photo_each(items, 10, np.random.default_rng(seed)) for seed in range(20)]
    assert all(sorted(items[places]) == ["a", "b", "c"] for places in taken)
    assert {int(place) for places in taken for place in places} == set(range(6))
    assert len(one_photo_each(items, 2, np.random.default_rng(0))) == 2
    assert len(one_photo_each(items[:0], 2, np.random.default_rng(0))) == 0


def test_the_shrunk_covariance_is_that_of_ledoit_and_wolf() -> None:
    x = np.random.default_rng(2).standard_normal((30, 8)) * np.linspace(0.2, 3, 8)
    np.testing.assert_allclose(shrunk_covariance(x), ledoit_wolf(x)[0], rtol=1e-10)
    assert np.linalg.slogdet(shrunk_covariance(x[:3]))[0] == 1


def test_the_kl_is_zero_of_equals_and_that_of_a_shift_by_hand() -> None:
    eye = np.eye(3)
    assert gaussian_kl(np.ones(3), eye, np.ones(3), eye) == pytest.approx(0)
    assert gaussian_kl(np.array([2.0, 0, 0]), eye, np.zeros(3), eye) == pytest.approx(2.0)
    assert gaussian_kl(np.zeros(1), 4 * np.eye(1), np.zeros(1), np.eye(1)) == pytest.approx((4 - 1 - np.log(4)) / 2)


def test_the_kl_of_a_resample_is_as_large_as_chance_says() -> None:
    """p-values of 60 resamples are spread over 0 to 1, whatever was chosen on the reference."""
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        vectors = rng.standard_normal((160, 40)).astype(np.float32)
        found.append(kl_test(vectors[:120], vectors[120:], rng, resamples=99))
    ps = np.array([test.p for test in found])
    assert 0.35 < ps.mean() < 0.65
    assert (ps <= 0.05).sum() <= 8
    assert sum(test.changed for test in found) <= 3


def test_the_kl_tells_another_mix_of_known_kinds() -> None:
    rng = np.random.default_rng(0)
    vectors = blobs(rng, 400)
    near = vectors @ vectors[0] > 0.6
    found = kl_test(vectors[:200], vectors[200:][near[200:]], rng)
    assert found.changed
    assert found.nats > found.limit > found.usual
    assert not kl_test(vectors[:200], vectors[200:], rng).changed
