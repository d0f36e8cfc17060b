"""Second-stage formulas against slow direct implementations."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.vectors.exact import exact_scores
from indexer.vectors.faiss import FaissIndex
from indexer.vectors.neighbours import BLOCK, nearest_others
from indexer.vectors.rerank import NeighbourLists, distances_of, expand_query, k_reciprocal
from training.reference import Metric


def clustered(metric: Metric, count: int = 60, seed: int = 0) -> np.ndarray:
    """Vectors around a few centres, so that many neighbours are mutual."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(6, 8))[rng.integers(6, size=count)] + 0.5 * rng.normal(size=(count, 8))
    if metric == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def slow_encoding(own: int | None, scores: np.ndarray, between: np.ndarray, k: int, metric: Metric) -> dict[int, float]:
    """Equations 1, 3, 5 and 7 by sets, of the point with these scores to the catalogue."""

    def nearest(g: int, count: int) -> list[int]:
        return [int(o) for o in np.argsort(-between[g], kind="stable") if o != g][:count]

    def mutual(g: int, count: int) -> set[int]:
        return {g} | {o for o in nearest(g, count) if g in nearest(o, count)}

    near = [int(o) for o in np.argsort(-scores, kind="stable") if o != own][:k]
    distance = distances_of(scores, metric)
    if own is None:
        chosen = {g for g in near if scores[g] >= between[g, nearest(g, k)[-1]]}
    else:
        chosen = mutual(own, k)
    grown = set(chosen)
    for member in chosen:
        theirs = mutual(member, k // 2)
        if len(theirs & chosen) >= 2 / 3 * len(theirs) - 1e-12:
            grown |= theirs
    weights = {g: np.exp(-distance[g] / distance[near[-1]]) if g in chosen else np.exp(-1) for g in grown}
    if own is not None:
        weights[own] = 1.0
    return {g: weight / sum(weights.values()) for g, weight in weights.items()}


def slow_mean(parts: list[dict[int, float]]) -> dict[int, float]:
    """Equation 11."""
    return {g: sum(part.get(g, 0.0) for part in parts) / len(parts) for g in set().union(*parts)}


def slow_final(
    query: np.ndarray, others: np.ndarray, catalogue: np.ndarray, candidates: list[int], k: int, k2: int, metric: Metric
) -> np.ndarray:
    """Equations 10 to 12, one candidate after another; -1 - g is a point outside the catalogue."""
    between = exact_scores(catalogue, catalogue, metric)

    def encoded(own: int | None, vector: np.ndarray) -> dict[int, float]:
        scores = exact_scores(vector[None], catalogue, metric)[0] if own is None else between[own]
        near = [int(o) for o in np.argsort(-scores, kind="stable") if o != own][: k2 - 1]
        parts = [slow_encoding(o, between[o], between, k, metric) for o in near]
        return slow_mean([slow_encoding(own, scores, between, k, metric), *parts])

    mine = encoded(None, query)
    vectors = [catalogue[c] if c >= 0 else others[-1 - c] for c in candidates]
    original = distances_of(exact_scores(query[None], np.stack(vectors), metric)[0], metric)
    final = []
    for candidate, vector, distance in zip(candidates, vectors, original, strict=True):
        theirs = encoded(candidate if candidate >= 0 else None, vector)
        members = set(mine) | set(theirs)
        smaller = sum(min(mine.get(g, 0.0), theirs.get(g, 0.0)) for g in members)
        larger = sum(max(mine.get(g, 0.0), theirs.get(g, 0.0)) for g in members)
        final.append(0.7 * (1 - (smaller / larger if larger else 0.0)) + 0.3 * distance / original.max())
    return np.array(final)


def nearest_of(vectors: np.ndarray, catalogue: np.ndarray, k: int, metric: Metric) -> NeighbourLists:
    found = FaissIndex.exact(catalogue, metric).search(vectors, k)
    return NeighbourLists(found.positions.astype(np.int32), found.scores)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize(("k", "k2"), [(8, 3), (8, 1), (3, 2)])
def test_k_reciprocal_equals_the_formulas_by_sets(k: int, k2: int, metric: Metric) -> None:
    catalogue, outside = clustered(metric), clustered(metric, 6, seed=1)
    lists = nearest_others(FaissIndex.exact(catalogue, metric), catalogue, k)
    guests = nearest_of(outside[4:], catalogue, k, metric)
    for query in outside[:4]:
        candidates = np.array([5, -1, 0, 17, 33, -2, 59])
        vectors = np.stack([catalogue[c] if c >= 0 else outside[4:][-1 - c] for c in candidates])
        distances = distances_of(exact_scores(query[None], vectors, metric)[0], metric)
        one = nearest_of(query[None], catalogue, k, metric)
        found = k_reciprocal(lists, one, candidates, guests, distances, metric, k2=k2, original_share=0.3)
        slow = slow_final(query, outside[4:], catalogue, candidates.tolist(), k, k2, metric)
        np.testing.assert_allclose(found, slow, atol=1e-5)


def test_a_share_of_one_leaves_the_order_of_the_distances() -> None:
    catalogue = clustered("cosine")
    lists = nearest_others(FaissIndex.exact(catalogue, "cosine"), catalogue, 5)
    nobody = NeighbourLists(np.empty((0, 5), np.int32), np.empty((0, 5), np.float32))
    one = nearest_of(clustered("cosine", 1, seed=2), catalogue, 5, "cosine")
    distances = np.linspace(0.1, 0.9, 10)
    found = k_reciprocal(lists, one, np.arange(10), nobody, distances, "cosine", original_share=1.0)
    np.testing.assert_allclose(found, distances / 0.9)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("count", [1, 2, 7, BLOCK + 3])
def test_neighbour_lists_equal_brute_force_and_leave_a_vector_itself_out(count: int, metric: Metric) -> None:
    vectors = clustered(metric, count)
    found = nearest_others(FaissIndex.exact(vectors, metric), vectors, 4)
    exact = exact_scores(vectors, vectors, metric)
    np.fill_diagonal(exact, -np.inf)
    k = min(4, count - 1)
    assert found.positions.shape == found.scores.shape == (count, k)
    assert not (found.positions == np.arange(count)[:, None]).any()
    np.testing.assert_allclose(found.scores, -np.sort(-exact, axis=1)[:, :k], atol=2e-3 if metric == "l2" else 1e-5)


def test_lists_of_equal_vectors_are_whole() -> None:
    vectors = np.ones((9, 3), np.float32)
    found = nearest_others(FaissIndex.exact(vectors, "l2"), vectors, 4)
    assert found.positions.shape == (9, 4)
    assert all(len(set(row)) == 4 and place not in row for place, row in enumerate(found.positions.tolist()))


def test_expansion_equals_the_weighted_sum_by_hand() -> None:
    query = np.array([[1.0, 0.0]], np.float32)
    near = np.array([[0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]], np.float32)
    total = np.array([1 + 0.512 * 0.8, 0.512 * 0.6])  # 0.8 ** 3, then nothing, then a cosine below 0
    np.testing.assert_allclose(expand_query(query, near, "cosine")[0], total / np.linalg.norm(total), rtol=1e-6)
    np.testing.assert_allclose(expand_query(query, near, "l2")[0], total / 1.512, rtol=1e-6)
