"""Metrics against hand-worked rankings, trec_eval and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from indexer.measures.metrics import Bootstrap, in_order, knn_correct, metrics_of, rank, score_blocks, score_chunks

KS = (1, 3, 5, 10)


def one(gains: list[float]) -> dict[str, float]:
    return {name: float(values[0]) for name, values in metrics_of(np.array([gains], np.float32), KS).items()}


def test_a_ranking_worked_by_hand() -> None:
    """Relevant at ranks 1, 3 and 6 of 7: precisions there are 1/1, 2/3 and 3/6."""
    found = one([1, 0, 1, 0, 0, 1, 0])
    assert found["precision@1"] == 1
    assert found["precision@3"] == pytest.approx(2 / 3)
    assert found["precision@10"] == pytest.approx(3 / 10)
    assert found["recall@3"] == pytest.approx(2 / 3)
    assert found["recall@10"] == 1
    assert found["hit@1"] == 1
    assert found["map"] == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    assert found["map@r"] == pytest.approx((1 + 2 / 3) / 3)
    assert found["r-precision"] == pytest.approx(2 / 3)
    assert found["mrr"] == 1
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / np.log2(4) + 1 / np.log2(7)) / ideal)
    assert found["ndcg@1"] == 1


def test_map_at_r_punishes_what_r_precision_does_not() -> None:
    """Musgrave et al. 2020, figure 3: ten relevant, the same R-precision for a first and for a last half."""
    early, late = one([1] * 5 + [0] * 5 + [1] * 5), one([0] * 5 + [1] * 10)
    assert early["r-precision"] == late["r-precision"] == 0.5
    assert early["map@r"] == pytest.approx(0.5)
    assert late["map@r"] == pytest.approx(sum(i / (5 + i) for i in range(1, 6)) / 10)


def test_nothing_relevant_has_no_figure() -> None:
    assert all(np.isnan(value) for value in one([0, 0, 0]).values())


def test_an_empty_gallery_has_no_figure() -> None:
    assert all(np.isnan(value).all() for value in metrics_of(np.zeros((2, 0), np.float32), KS).values())


def test_nothing_found_is_zero_but_for_what_the_ranking_still_holds() -> None:
    found = one([0, 0, 0, 0, 1])
    assert (found["precision@3"], found["recall@3"], found["hit@3"], found["ndcg@3"]) == (0, 0, 0, 0)
    assert found["mrr"] == found["map"] == pytest.approx(0.2)


def by_trec_eval(gains: np.ndarray) -> list[dict[str, float]]:
    names = [f"d{place}" for place in range(gains.shape[1])]
    qrels = {f"q{row}": {d: int(g) for d, g in zip(names, line, strict=True)} for row, line in enumerate(gains)}
    scores = {query: {name: float(-place) for place, name in enumerate(names)} for query in qrels}
    measures = {"map", "recip_rank", "Rprec"} | {
        f"{name}.{','.join(map(str, KS))}" for name in ("P", "recall", "ndcg_cut", "success")
    }
    found = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(scores)
    return [found[query] for query in qrels]


def map_at_r(gains: np.ndarray) -> float:
    """The definition as a loop."""
    relevant = int((gains > 0).sum())
    total = 0.0
    for place in range(relevant):
        if gains[place] > 0:
            total += (gains[: place + 1] > 0).sum() / (place + 1)
    return total / relevant


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 30)), elements=st.integers(0, 3)))
def test_random_graded_rankings_equal_trec_eval(gains: np.ndarray) -> None:
    own = metrics_of(gains, KS)
    pairs = {"map": "map", "mrr": "recip_rank", "r-precision": "Rprec"}
    for k in KS:
        pairs |= {f"precision@{k}": f"P_{k}", f"recall@{k}": f"recall_{k}"}
        pairs |= {f"ndcg@{k}": f"ndcg_cut_{k}", f"hit@{k}": f"success_{k}"}
    for row, theirs in enumerate(by_trec_eval(gains)):
        if not (gains[row] > 0).any():
            assert all(np.isnan(own[name][row]) for name in own)
            continue
        for name, other in pairs.items():
            assert own[name][row] == pytest.approx(theirs[other], abs=1e-6), name
        assert own["map@r"][row] == pytest.approx(map_at_r(gains[row]), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 20)), elements=st.integers(-3, 3)),
    st.integers(0, 100),
)
def test_a_ranking_holds_every_position_once_from_best_to_worst(scores: np.ndarray, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(scores.shape[1])
    ranked = rank(scores, order)
    assert (np.sort(ranked, axis=1) == np.arange(scores.shape[1])).all()
    assert (np.diff(np.take_along_axis(scores, ranked, axis=1)) <= 0).all()


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 40)),
        elements=st.sampled_from([-np.inf, -1.5, -1e-30, -0.0, 0.0, 1e-30, 2.0]),
    ),
    st.integers(0, 100),
)
def test_a_ranking_is_the_stable_sort_of_the_shuffled_gallery(scores: np.ndarray, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(scores.shape[1])
    stable = order[np.argsort(-scores[:, order], axis=1, kind="stable")]
    np.testing.assert_array_equal(rank(scores, order), stable)
    np.testing.assert_array_equal(in_order(scores, stable), np.take_along_axis(scores, stable, axis=1))


def test_a_score_that_is_no_number_ranks_last() -> None:
    scores = np.array([[np.nan, 1.0, -np.inf, -np.nan, 2.0]], np.float32)
    assert rank(scores, np.arange(5))[0, :2].tolist() == [4, 1]


@pytest.mark.parametrize(("metric", "classes"), [("cosine", 2), ("l2", 2), ("l2", 7)])
def test_knn_equals_the_classifier_of_scikit_learn_where_no_vote_is_drawn(metric: str, classes: int) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(classes)
    gallery = rng.normal(size=(400, 5)).astype(np.float32)
    queries = rng.normal(size=(150, 5)).astype(np.float32)
    labels = (rng.integers(0, classes, 400) + 2 * (gallery[:, 0] > 0)) % classes
    truth = rng.integers(0, classes, 150)
    if metric == "cosine":
        gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    scores = np.concatenate([block for _, block in score_blocks(queries, gallery, metric)])
    nearest = rank(scores, np.arange(400))[:, :5]
    own = knn_correct(np.take_along_axis(scores, nearest, axis=1), labels[nearest], truth)
    theirs = KNeighborsClassifier(5, algorithm="brute").fit(gallery, labels).predict(queries) == truth
    counts = np.sort([np.bincount(row, minlength=classes) for row in labels[nearest]], axis=1)
    undrawn = counts[:, -1] > counts[:, -2]
    assert undrawn.sum() > 60
    np.testing.assert_array_equal(own[undrawn], theirs[undrawn])


def test_votes_worked_by_hand() -> None:
    scores = np.array([[0.875, 0.75, 0.625, 0.5, 0.125]] * 6, np.float32)
    labels = np.array(
        [
            [0, 1, 1, 0, 2],  # drawn, and both have 1.375: the nearer
            [1, 0, 0, 2, 1],  # drawn: 1 has 1.0, 0 has 1.375
            [0, 1, 2, 3, 4],  # all drawn: the nearest
            [-2, -2, -2, 1, -2],  # those without a label have no vote
            [-2, -2, -2, -2, -2],
            [0, 0, 1, 1, 1],
        ]
    )
    won = [
        [label for label in range(5) if knn_correct(scores[[n]], labels[[n]], np.array([label]))[0]] for n in range(6)
    ]
    assert won == [[0], [0], [0], [1], [], [1]]
    assert knn_correct(np.array([[0.9, -np.inf, -np.inf]]), np.array([[0, 1, 1]]), np.array([0])) == [1]


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_scores_of_a_gallery_in_chunks_equal_those_of_the_whole(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, gallery = (rng.normal(size=(n, 6)).astype(np.float32) for n in (23, 40))
    monkeypatch.setattr("indexer.measures.metrics.PASS_NUMBERS", 400)
    monkeypatch.setattr("indexer.measures.metrics.BLOCK_NUMBERS", 120)
    passes = []

    def chunks() -> list[np.ndarray]:
        passes.append(1)
        return [gallery[:17], gallery[17:34], gallery[34:]]

    blocks = list(score_chunks(queries, chunks, 40, metric))
    assert len(passes) == 3
    assert [row for block, _ in blocks for row in range(block.start, block.stop)] == list(range(23))
    whole = np.concatenate([scores for _, scores in score_blocks(queries, gallery, metric)])
    np.testing.assert_allclose(np.concatenate([scores for _, scores in blocks]), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_scores_in_blocks_equal_scores_at_once(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, gallery = (rng.normal(size=(n, 6)).astype(np.float32) for n in (23, 40))
    monkeypatch.setattr("indexer.measures.metrics.BLOCK_NUMBERS", 200)
    blocks = list(score_blocks(queries, gallery, metric))
    assert len(blocks) == 5
    scores = np.concatenate([block for _, block in blocks])
    if metric == "cosine":
        np.testing.assert_allclose(scores, queries @ gallery.T, rtol=1e-4, atol=1e-5)
    else:
        distances = np.linalg.norm(queries[:, None] - gallery[None], axis=2)
        np.testing.assert_array_equal(np.argsort(-scores, axis=1), np.argsort(distances, axis=1))


def test_the_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        values = rng.random(80)
        interval = Bootstrap([str(n) for n in range(80)], replicates=400, seed=trial).interval(values)
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= 0.5 <= interval.high
    assert 0.89 <= covered / 200 <= 0.99


def test_queries_of_one_item_are_resampled_together() -> None:
    """20 items of 10 equal queries say no more than 20 queries; taken singly they would seem ten times as many."""
    rng = np.random.default_rng(1)
    by_item = rng.random(20)
    items = [str(number) for number in np.repeat(np.arange(20), 10)]
    together = Bootstrap(items, seed=0).interval(np.repeat(by_item, 10))
    single = Bootstrap([str(n) for n in range(200)], seed=0).interval(np.repeat(by_item, 10))
    alone = Bootstrap([str(n) for n in range(20)], seed=0).interval(by_item)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.15)
    assert together.high - together.low > 2 * (single.high - single.low)


def test_the_same_seed_gives_the_same_interval_and_nan_takes_no_part() -> None:
    values = np.array([0.1, np.nan, 0.5, 0.9])
    items = ["a", "b", "c", "d"]
    assert Bootstrap(items, seed=3).interval(values) == Bootstrap(items, seed=3).interval(values)
    assert Bootstrap(items, seed=3).interval(values).value == pytest.approx(0.5)
    assert np.isnan(Bootstrap(items).interval(np.full(4, np.nan)).value)
