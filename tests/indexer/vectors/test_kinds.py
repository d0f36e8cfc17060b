"""Indexes of every kind: what is chosen, what is found, with filters and without, and what is written."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.errors import CorruptError
from indexer.vectors import KINDS, Allowed, Floats, IndexOptions, Kind
from indexer.vectors import faiss as engine
from indexer.vectors.building import HELD_OUT, LEAST_APPROXIMATE, Built, Plan, build_index
from indexer.vectors.engines import read_index
from indexer.vectors.exact import Truth, exact_neighbours
from indexer.vectors.kinds import INDEX, VECTORS, chosen_kind, clusters_of, factory_of, index_bytes
from training.reference import Metric

COUNT, DIM = 6000, 16
APPROXIMATE: tuple[Kind, ...] = ("hnsw", "ivf", "ivf-pq")


def catalogue(count: int, dim: int, metric: Metric, seed: int) -> Floats:
    """Vectors in 40 overlapping groups."""
    rng = np.random.default_rng(seed)
    groups = np.random.default_rng(9).normal(size=(40, dim))
    vectors = (groups[rng.integers(40, size=count)] + 0.8 * rng.normal(size=(count, dim))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if metric == "cosine" else vectors


@pytest.fixture(scope="module")
def vectors() -> Floats:
    return catalogue(COUNT, DIM, "cosine", 0)


@pytest.fixture(scope="module")
def queries() -> Floats:
    return catalogue(100, DIM, "cosine", 1)


@pytest.fixture(scope="module")
def built(vectors: Floats, tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, tuple[Built, Path]]:
    found: dict[Kind, tuple[Built, Path]] = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        plan = Plan.of(COUNT, DIM, IndexOptions(kind, 0.98))
        ordered = np.empty_like(vectors)
        ordered[plan.order(COUNT)] = vectors
        found[kind] = build_index(ordered, "cosine", plan, folder), folder
    return found


def in_order(vectors: Floats, kind: Kind) -> Floats:
    """The vectors by position in an index of a kind."""
    ordered = np.empty_like(vectors)
    ordered[Plan.of(COUNT, DIM, IndexOptions(kind)).order(COUNT)] = vectors
    return ordered


@pytest.mark.parametrize("kind", KINDS)
def test_recall_of_new_queries_is_what_was_measured(
    built: dict[Kind, tuple[Built, Path]], kind: Kind, vectors: Floats, queries: Floats
) -> None:
    made, _ = built[kind]
    truth = Truth.of(queries, in_order(vectors, kind), "cosine")
    recall = truth.recalls(made.index.search(queries, 10).positions).mean()
    assert made.recall >= 0.97 and recall >= 0.96
    assert made.index.count == COUNT


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_read_from_disk_or_mapped_finds_what_was_built(
    built: dict[Kind, tuple[Built, Path]], kind: Kind, queries: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, folder = built[kind]
    assert sorted(made.files) == sorted(path.name for path in folder.iterdir())
    expected = made.index.search(queries, 20)
    for mapped_from in (2**30, 0):
        monkeypatch.setattr(engine, "MAPPED_FROM", mapped_from)
        read = read_index(folder, made.index.factory, made.index.parameters)
        found = read.search(queries, 20)
        np.testing.assert_array_equal(found.positions, expected.positions)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
        positions = np.array([0, 5, COUNT - 1])
        np.testing.assert_array_equal(read.vectors_at(positions), made.index.vectors_at(positions))


@pytest.mark.parametrize("kind", KINDS)
def test_stored_vectors_and_scores_are_those_of_the_catalogue(
    built: dict[Kind, tuple[Built, Path]], kind: Kind, vectors: Floats, queries: Floats
) -> None:
    """A position's vector is the one that was given for it, held-out ones included."""
    made, _ = built[kind]
    ordered = in_order(vectors, kind)
    np.testing.assert_allclose(made.index.vectors_at(np.arange(COUNT)), ordered, atol=1e-3)
    found = made.index.search(queries, 10)
    exact = np.take_along_axis(queries @ ordered.T, found.positions, axis=1)
    np.testing.assert_allclose(found.scores, exact, atol=2e-3)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert (
        made.index.search(ordered[-HELD_OUT:], 1).positions[:, 0] == np.arange(COUNT - HELD_OUT, COUNT)
    ).mean() > 0.95


@pytest.mark.parametrize("share", [0.5, 0.05, 0.005, 0.0005])
@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("where", ["anywhere", "nearby", "far away"])
def test_a_filtered_search_keeps_its_recall_and_is_never_short(
    built: dict[Kind, tuple[Built, Path]], kind: Kind, share: float, where: str, vectors: Floats, queries: Floats
) -> None:
    """Also if the items that pass are all near the query, or all far from it."""
    made, _ = built[kind]
    ordered = in_order(vectors, kind)
    wanted, k = max(3, round(share * COUNT)), 10
    recalls = []
    for query in queries[:10]:
        ranked = np.argsort(-(ordered @ query))
        place = {"anywhere": np.random.default_rng(2).permutation(COUNT), "nearby": ranked, "far away": ranked[::-1]}
        mask = np.zeros(COUNT, dtype=bool)
        mask[place[where][:wanted]] = True
        found = made.index.search(query[None], k, Allowed(mask))
        exact = exact_neighbours(query[None], ordered, k, "cosine", np.flatnonzero(mask))
        real = found.positions[0][found.positions[0] >= 0]
        assert len(real) == len(set(real.tolist())) == min(k, wanted)
        assert mask[real].all()
        recalls.append(np.isin(exact.positions[0], real).mean())
    assert np.mean(recalls) >= 0.95


@pytest.mark.parametrize("k", [1, 4, 8])
def test_a_few_results_under_a_filter_from_a_graph_that_keeps_few_candidates(
    built: dict[Kind, tuple[Built, Path]], k: int, vectors: Floats, queries: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first attempt keeps fewer candidates than recall is measured with."""
    made, folder = built["hnsw"]
    monkeypatch.setattr(engine, "VISITED", 0.01)  # as if the graph were large
    index = read_index(folder, made.index.factory, {"ef": 16})
    allowed = Allowed(np.arange(COUNT) % 2 == 0)
    found = index.search(queries, k, allowed)
    exact = index.search_exactly(queries, k, allowed)
    assert found.positions.shape == (len(queries), k)
    assert (found.scores >= exact.scores[:, -1:] - 1e-6).mean() > 0.9


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_pages_of_one_depth_do_not_overlap(built: dict[Kind, tuple[Built, Path]], kind: Kind, queries: Floats) -> None:
    """The first results stay the same when more of them are asked for."""
    made, _ = built[kind]
    base = made.index.parameters["ef" if kind == "hnsw" else "candidates"]
    short = made.index.search(queries, base // 4)
    long = made.index.search(queries, base // 2)
    np.testing.assert_array_equal(short.positions, long.positions[:, : base // 4])


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_as_many_results_as_the_index_holds(built: dict[Kind, tuple[Built, Path]], kind: Kind, queries: Floats) -> None:
    made, _ = built[kind]
    found = made.index.search(queries[:2], COUNT + 5)
    assert found.positions.shape == (2, COUNT)
    assert all(sorted(row) == list(range(COUNT)) for row in found.positions.tolist())
    nothing = made.index.search(queries[:2], 3, Allowed(np.zeros(COUNT, dtype=bool)))
    assert (nothing.positions == -1).all() and nothing.positions.shape == (2, 3)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_distances_of_l2_and_odd_dimensions(kind: Kind, tmp_path: Path) -> None:
    vectors, queries = catalogue(LEAST_APPROXIMATE, 7, "l2", 0), catalogue(30, 7, "l2", 1)
    made = build_index(vectors, "l2", Plan.of(len(vectors), 7, IndexOptions(kind, 0.95)), tmp_path)
    found = made.index.search(queries, 10)
    distances = np.linalg.norm(queries[:, None] - vectors[found.positions], axis=2)
    np.testing.assert_allclose(-found.scores, distances, atol=2e-2)
    assert Truth.of(queries, vectors, "l2").recalls(found.positions).mean() > 0.9


def test_numbers_that_16_bits_cannot_hold_are_compared_with_32(tmp_path: Path) -> None:
    vectors = catalogue(LEAST_APPROXIMATE, 7, "l2", 0) * 1e5
    made = build_index(vectors, "l2", Plan.of(len(vectors), 7, IndexOptions("ivf-pq")), tmp_path)
    found = made.index.search(vectors[:5], 1)
    assert made.index.factory == "Flat" and found.positions[:, 0].tolist() == list(range(5))


@given(st.integers(0, 10**7), st.integers(1, 2048), st.integers(10**6, 10**10))
@settings(max_examples=200, deadline=None)
def test_the_chosen_index_fits_or_is_the_smallest(count: int, dim: int, memory: int) -> None:
    kind = chosen_kind(count, dim, IndexOptions(memory=memory))
    assert index_bytes(kind, count, dim) <= memory or kind == "ivf-pq"
    assert chosen_kind(count, dim, IndexOptions("ivf", memory=memory)) == "ivf"
    if count >= LEAST_APPROXIMATE:
        faiss.index_factory(dim, factory_of(kind, count, dim))  # a string that FAISS can read


def test_small_collections_are_searched_exactly_and_large_ones_are_not() -> None:
    plenty = IndexOptions(memory=10**12)
    assert chosen_kind(3_000, 224, plenty) == "flat"
    assert chosen_kind(98_000, 192, plenty) == "hnsw"
    assert chosen_kind(10**7, 192, plenty) == "ivf-pq"
    assert chosen_kind(10**6, 192, IndexOptions(memory=2 * 10**8)) == "ivf-pq"
    assert Plan.of(100, 8, IndexOptions("hnsw")).kind == "flat"  # too few to tune a graph with
    assert clusters_of(10**6) == 4096


def test_an_index_of_another_kind_than_its_manifest_says_is_refused(
    built: dict[Kind, tuple[Built, Path]], tmp_path: Path
) -> None:
    _, folder = built["hnsw"]
    with pytest.raises(CorruptError, match=r"index\.faiss: holds an IndexHNSWSQ, but the manifest says Flat"):
        read_index(folder, "Flat", {})
    made, folder = built["ivf-pq"]
    (tmp_path / INDEX).write_bytes((folder / INDEX).read_bytes())
    (tmp_path / VECTORS).write_bytes(b"gone")
    with pytest.raises(CorruptError, match=r"vectors\.faiss: not a readable FAISS index"):
        read_index(tmp_path, made.index.factory, made.index.parameters)
