"""Measures of robustness against hand-worked cases, plain loops, and encoders of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.measures.metrics import Bootstrap
from indexer.measures.robustness import (
    LabelledVectors,
    query_metrics,
    swap_test,
)

RNG = np.random.default_rng(0)


ITEMS = [f"item {n}" for n in range(40)]


ITEM_AXES = RNG.normal(size=(40, 8)).astype(np.float32)


BACKGROUND_AXES = RNG.normal(size=(6, 8)).astype(np.float32)


def photos(backgrounds: list[int], of_background: float) -> LabelledVectors:
    """Every item on every one of the backgrounds, seen by an encoder to which the background matters so much."""
    vectors = [ITEM_AXES + of_background * BACKGROUND_AXES[b] for b in backgrounds]
    return LabelledVectors(np.concatenate(vectors), ITEMS * len(backgrounds))


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_an_encoder_that_sees_no_background_retains_all(metric: str) -> None:
    gallery = LabelledVectors(ITEM_AXES / np.linalg.norm(ITEM_AXES, axis=1, keepdims=True), ITEMS)
    queries = LabelledVectors(np.tile(gallery.vectors, (5, 1)), ITEMS * 5)
    figures = swap_test(gallery, gallery, queries, metric).figures
    assert list(figures) == ["recall@1", "recall@5", "recall@10", "map@r"]
    for figure in figures.values():
        assert figure.clean.value == figure.swapped.value == figure.retention.value == 1


def test_the_more_an_encoder_sees_of_backgrounds_the_less_it_retains() -> None:
    retained = []
    for share in (0.0, 1.0, 5.0):
        gallery, clean, swapped = (photos(backgrounds, share) for backgrounds in ([0], [0], [1, 2, 3, 4, 5]))
        figure = swap_test(gallery, clean, swapped, "l2").figures["recall@1"]
        assert figure.clean.value == 1
        assert figure.retention.low <= figure.retention.value <= figure.retention.high
        retained.append(figure.retention.value)
    assert retained[0] == 1 and retained[0] > retained[1] > retained[2]
    assert retained[2] < 0.3


def test_a_case_worked_by_hand() -> None:
    """Two items, two gallery photos each, on a line; the second item's swapped queries lie among the first's."""
    gallery = LabelledVectors(np.array([[0.0], [1.0], [10.0], [11.0]], np.float32), ["a", "a", "b", "b"])
    clean = LabelledVectors(np.array([[0.4], [10.4]], np.float32), ["a", "b"])
    swapped = LabelledVectors(np.array([[0.4], [5.4], [0.1]], np.float32), ["a", "b", "b"])
    figures = swap_test(gallery, clean, swapped, "l2", ks=(1, 3)).figures
    assert figures["recall@1"].clean.value == 1
    assert figures["recall@1"].swapped.value == figures["recall@1"].retention.value == 0.5
    # 5.4 finds a, b, a, b: recall@3 is 1. 0.1 finds a, a, b, b: 1 as well.
    assert figures["recall@3"].swapped.value == 1
    # MAP@R: a has 1. b has (0 + 1/2) / 2 and 0, of which the mean is 1/8.
    assert figures["map@r"].swapped.value == pytest.approx((1 + 1 / 8) / 2)


def test_figures_equal_a_plain_loop() -> None:
    gallery, queries = photos([0, 1], 0.8), photos([2, 3, 4], 0.8)
    found = query_metrics(gallery, queries, "cosine", np.arange(80))
    for row, (vector, item) in enumerate(zip(queries.vectors, queries.items, strict=True)):
        ranked = np.argsort(-(gallery.vectors @ vector), kind="stable")
        hits = [gallery.items[place] == item for place in ranked]
        assert found["recall@5"][row] == any(hits[:5])
        assert found["map@r"][row] == pytest.approx(sum(sum(hits[: i + 1]) / (i + 1) for i in range(2) if hits[i]) / 2)


def test_the_interval_of_a_ratio_is_of_the_same_items_and_covers_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        base = rng.uniform(0.2, 1.0, 60)
        values = base * rng.uniform(0.3, 0.7, 60)
        ratio = Bootstrap([str(n) for n in range(60)], replicates=400, seed=trial).ratio(values, base)
        assert ratio.value == pytest.approx(values.mean() / base.mean())
        covered += ratio.low <= 0.5 <= ratio.high
    assert 0.89 <= covered / 200 <= 0.99
    exact = Bootstrap(list("abc")).ratio(np.array([0.1, 0.2, 0.4]), np.array([0.2, 0.4, 0.8]))
    assert exact == pytest.approx((0.5, 0.5, 0.5))


def test_a_base_of_nothing_has_no_ratio() -> None:
    assert np.isnan(Bootstrap(["a", "b"]).ratio(np.zeros(2), np.zeros(2)).value)


def test_items_that_do_not_match_are_refused() -> None:
    one = LabelledVectors(np.zeros((1, 2), np.float32), ["a"])
    other = LabelledVectors(np.zeros((1, 2), np.float32), ["b"])
    with pytest.raises(ValueError, match="the same items"):
        swap_test(one, one, other, "l2")
    with pytest.raises(ValueError, match="the same items"):
        swap_test(other, one, one, "l2")
    with pytest.raises(ValueError, match="1 vectors are given for 2 items"):
        LabelledVectors(np.zeros((1, 2), np.float32), ["a", "b"])
