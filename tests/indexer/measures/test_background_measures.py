"""Lure rate, displacement, background gap and attention score."""

from __future__ import annotations

from dataclasses import fields

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.measures.metrics import Bootstrap
from indexer.measures.robustness import (
    LabelledVectors,
    background_gap,
    displacement,
    lure_rate,
    swap_test,
)
from indexer.measures.variance import variance_shares
from tests.indexer.measures.mixtures import (
    BANK,
    COUNT,
    DIM,
    DONORS,
    LABELS,
    LURES,
    MIXTURES,
    NAMES,
    PAIRED,
    Seen,
    seen,
)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_an_encoder_that_ignores_backgrounds_has_the_ideal_of_every_measure(metric: str) -> None:
    assert seen(1.0, metric).figures(metric) == pytest.approx(
        {
            "swapped recall@1": 1, "swapped recall@5": 1, "swapped map@r": 1, "retention": 1,
            "item share": 1, "background share": 0, "background gap": 0, "displacement": 0, "overtaken": 0,
            "lure rate": 1,  # its neighbours are on each of the backgrounds as often as any photo
            "background probe": 1 / BANK,  # one answer for all photos of an item
            "item probe": 1,
        },
        abs=1e-9,
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_an_encoder_that_sees_only_backgrounds_is_at_chance_or_worst(metric: str) -> None:
    found = seen(0.0, metric).figures(metric)
    assert np.isnan(found.pop("displacement")), "all items are in one place: there is nothing to measure it by"
    # On the bank all photos of a background have one ranking, in which every item has each rank once: recall@k is k in
    # 30. A clean query finds its own background. Of the photos on random backgrounds those find their kind that are on
    # one of their own kind.
    by_luck = np.mean([LABELS[donor] == label for donor, label in zip(DONORS[1], LABELS, strict=True)])
    assert found == pytest.approx(
        {
            "swapped recall@1": 1 / COUNT, "swapped recall@5": 5 / COUNT, "swapped map@r": 1 / COUNT,
            "retention": 1 / COUNT, "item share": 0, "background share": 1,
            "background gap": 1 - by_luck,
            "lure rate": BANK,  # all of the neighbours, where one in five photos has the background
            "background probe": 1, "item probe": 1 / COUNT, "overtaken": 1,
        },
        abs=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("pose", [0.0, 0.2])
def test_every_measure_ranks_mixtures_rightly(metric: str, pose: float) -> None:
    ladder = [seen(a, metric, pose=pose).figures(metric) for a in MIXTURES]
    falling = {"swapped recall@1", "swapped recall@5", "swapped map@r", "retention", "item share", "item probe"}
    for name in ladder[0]:
        values = np.array([rung[name] for rung in ladder])
        known = values[~np.isnan(values)]
        steps = np.diff(known) * (-1 if name in falling else 1)
        assert len(known) >= 5, name
        assert (steps >= -0.03).all() and steps.sum() > 0.3, f"{name}: {values.round(3)}"


def test_an_encoder_that_sees_nothing_has_no_shares_and_no_displacement() -> None:
    """0.1 is no binary number: the inner products differ by rounding, which would be called the items' share."""
    z = np.full((8, BANK, DIM), 0.1, np.float32)
    for share in variance_shares(z, ("item", "background")).values():
        assert np.isnan(share).all()
    moved = displacement(z)
    assert np.isnan(moved.ratio).all()
    assert (moved.overtaken == 1).all(), "what ties with another product is not nearer"


def rotation(rng: np.random.Generator, dim: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(dim, dim)))[0]


# --- lure rate


def test_a_lure_rate_worked_by_hand() -> None:
    """Four items on a line, photos of 0 and 1 on background 0 and of 2 and 3 on background 1; the first neighbour.

    Each of the items is at its own place on background 0 and 10 further on background 1; gallery at 0, 1, 12, 13.
    On 0 (places 0 1 2 3): 0 finds 1, a lure; 1 finds 0, a lure; 2 finds 1, a lure; 3 finds 1, a lure: 4.
    On 1 (10 11 12 13): 0 finds 2, 1 finds 2, 2 finds 3, 3 finds 2, all lures: 4. So 8 of 8.
    Chance: of the three others, one is on the own background and two on the other: items have (1 + 2) / 3 / 2 = 1/2.
    """
    queries = np.array([[[n], [10.0 + n]] for n in range(4)], np.float32)
    gallery = np.array([[0.0], [1.0], [12.0], [13.0]], np.float32)
    own = Bootstrap(list("abcd"), replicates=50)
    backgrounds = np.array([0, 0, 1, 1])
    assert lure_rate(queries, gallery, backgrounds, "l2", k=1, bootstrap=own) == pytest.approx((2, 2, 2))
    # Where the second background moves nothing, 0 to 3 find 1 0 1 1 on it as well, and none is on it: 4 of 8.
    still = np.repeat(queries[:, :1], 2, axis=1)
    assert lure_rate(still, gallery, backgrounds, "l2", k=1, bootstrap=own).value == pytest.approx(1)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_the_lure_rate_equals_a_plain_loop(metric: str) -> None:
    shown = seen(0.5, metric, pose=0.3)
    found = 0.0
    expected = 0.0
    for item in range(COUNT):
        others = [place for place in range(COUNT) if place != item]
        for background in range(BANK):
            query = shown.swapped[item, background]
            nearest = sorted(others, key=lambda place: float(np.square(query - shown.lures[place]).sum()))[:4]
            found += np.mean([LURES[place] == background for place in nearest])
            expected += np.mean([LURES[place] == background for place in others])
    rate = lure_rate(shown.swapped, shown.lures, LURES, metric, k=4, bootstrap=PAIRED)
    assert rate.value == pytest.approx(found / expected)
    assert rate.low < rate.value < rate.high


def test_no_more_neighbours_are_looked_at_than_can_be_lures() -> None:
    """With eight items every neighbour is among the first ten: the rate of any encoder would be 1."""
    shown = seen(0.0, "l2")
    few = Bootstrap(NAMES[:10], replicates=20)
    rate = lure_rate(shown.swapped[:10], shown.lures[:10], LURES[:10], "l2", k=10, bootstrap=few)
    assert rate.value == pytest.approx(BANK), "each background has two photos, of which one may be the item's own"


# --- displacement


def test_a_displacement_worked_by_hand() -> None:
    """On the first background items are at 0, 2, 5, on the second 1 further but for the last, which is at 9.

    Moved 1, 1, 4. Nearest other products on any background: 2 and 1 of the first item (0 to 2, 1 to 2), 1 and 2 of the
    second (2 to 1, 3 to 1), 2 and 6 of the third (5 to 3, 9 to 3). A tie counts as overtaken.
    """
    z = np.array([[[0.0], [1.0]], [[2.0], [3.0]], [[5.0], [9.0]]])
    found = displacement(z)
    assert found.ratio == pytest.approx([(1 / 2 + 1 / 1) / 2, (1 / 1 + 1 / 2) / 2, (4 / 2 + 4 / 6) / 2])
    assert found.overtaken == pytest.approx([1 / 2, 1 / 2, 1 / 2])


def test_displacement_equals_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    z = seen(0.6, "l2", pose=0.3).swapped
    monkeypatch.setattr("indexer.measures.robustness.BLOCK_NUMBERS", 7 * COUNT * BANK)
    found = displacement(z)
    for item in range(COUNT):
        ratios = []
        for query in range(BANK):
            others = np.delete(z, item, axis=0).reshape(-1, z.shape[-1])
            nearest = np.linalg.norm(others - z[item, query], axis=1).min()
            ratios += [
                np.linalg.norm(z[item, query] - z[item, other]) / nearest for other in range(BANK) if other != query
            ]
        assert found.ratio[item] == pytest.approx(np.mean(ratios), rel=1e-6)
        assert found.overtaken[item] == pytest.approx(np.mean(np.array(ratios) >= 1))


def test_what_is_overtaken_is_what_a_search_does_not_find_first() -> None:
    """A gallery of the item's photo on one background and of all other items on every background."""
    z = seen(0.8, "l2", pose=0.3).swapped
    missed = []
    for item in range(COUNT):
        for query in range(BANK):
            for own in set(range(BANK)) - {query}:
                gallery = np.concatenate([np.delete(z, item, axis=0).reshape(-1, z.shape[-1]), z[item, own][None]])
                found = np.linalg.norm(gallery - z[item, query], axis=1).argmin()
                missed.append(found != len(gallery) - 1)
    assert displacement(z).overtaken.mean() == pytest.approx(np.mean(missed))
    assert 0.05 < np.mean(missed) < 0.95


def test_a_mean_displacement_below_1_is_not_safe() -> None:
    """Nine of ten items hardly move, the tenth far beyond the others: its queries find another product."""
    rng = np.random.default_rng(0)
    z = np.repeat(rng.normal(size=(10, 1, 16)), 5, axis=1) + 0.01 * rng.normal(size=(10, 5, 16))
    z[0] += 2 * rng.normal(size=(5, 16))
    found = displacement(z)
    assert found.ratio.mean() < 0.5 and found.overtaken.mean() > 0.04


def test_an_item_is_set_against_other_products_not_against_copies_of_itself() -> None:
    z = seen(0.6, "l2").swapped[:6]
    twice = np.concatenate([z, z[:1] + np.float32(1e-4)])
    products = ["a", "b", "c", "d", "e", "f", "a"]
    assert displacement(twice).ratio[0] > 100
    known, apart, alone = displacement(twice, products), displacement(z), displacement(twice, ["a"] * 7)
    for part in ("ratio", "overtaken"):
        np.testing.assert_allclose(getattr(known, part)[:6], getattr(apart, part), rtol=1e-3)
        assert np.isnan(getattr(alone, part)).all()


@hypothesis.settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_no_figure_depends_on_where_the_axes_lie_or_on_their_unit(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    shown = seen(0.6, "l2", pose=0.3)
    turn = scale * rotation(rng, DIM)
    turned = Seen(*((getattr(shown, each.name) @ turn).astype(np.float32) for each in fields(Seen)))
    np.testing.assert_allclose(displacement(turned.swapped).ratio, displacement(shown.swapped).ratio, rtol=1e-3)
    for measure in (rates, gaps, retained):
        assert measure(turned) == pytest.approx(measure(shown), abs=1e-6)


def rates(shown: Seen) -> tuple[float, ...]:
    return lure_rate(shown.swapped, shown.lures, LURES, "l2", k=5, bootstrap=PAIRED)


def gaps(shown: Seen) -> tuple[float, ...]:
    found = background_gap(
        shown.gallery, (shown.same, DONORS[0]), (shown.random, DONORS[1]), LABELS, "l2", bootstrap=PAIRED
    )
    return found.gap


def retained(shown: Seen) -> tuple[float, ...]:
    queries = LabelledVectors(shown.swapped.reshape(-1, DIM), np.repeat(NAMES, BANK).tolist())
    test = swap_test(
        LabelledVectors(shown.gallery, NAMES), LabelledVectors(shown.clean, NAMES), queries, "l2", replicates=20
    )
    return test.figures["map@r"].retention
