"""Indexes of every kind: what is chosen, what is found, with filters and without, and what is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.catalogue.engine import Database
from indexer.catalogue.schema import metadata
from indexer.catalogue.vector_table import VectorTable
from indexer.catalogue.vector_tables import VectorTables
from indexer.errors import CorruptError
from indexer.vectors import KINDS, Allowed, Floats, IndexOptions, Kind
from indexer.vectors import faiss as engine
from indexer.vectors.building import HELD_OUT, LEAST_APPROXIMATE, Built, Plan
from indexer.vectors.engines import build_index, read_index
from indexer.vectors.exact import Truth, exact_neighbours
from indexer.vectors.kinds import INDEX, VECTORS, chosen_kind, clusters_of, factory_of, index_bytes
from indexer.vectors.pgvector import PgvectorIndex
from tests import postgres
from training.reference import Metric

COUNT, DIM = 6000, 16
APPROXIMATE: tuple[Kind, ...] = ("hnsw", "ivf", "ivf-pq")
ON_PGVECTOR = ("pgvector-flat", "pgvector-hnsw")


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


class Indexes(dict[str, tuple[Built, Path, VectorTable | None]]):
    """An index of each kind with its folder or table, built when it is first asked for."""

    def __init__(self, vectors: Floats, folder: Path, tables: Callable[[], VectorTables]) -> None:
        super().__init__()
        self._vectors, self._folder, self._tables = vectors, folder, tables

    def __missing__(self, kind: str) -> tuple[Built, Path, VectorTable | None]:
        ordered = in_order(self._vectors, kind)
        plan = Plan.of(COUNT, DIM, IndexOptions(faiss_kind(kind), 0.98))
        (folder := self._folder / kind).mkdir()
        if kind in ON_PGVECTOR:
            number = ON_PGVECTOR.index(kind)
            with self._tables().new(1, number, "cosine") as new:
                made = build_index(ordered, "cosine", plan, folder, new)
            table = self._tables().of(1, number, "cosine")
            read = read_index(folder, made.index.factory, made.index.parameters, table)
            self[kind] = replace(made, index=read), folder, table
        else:
            self[kind] = build_index(ordered, "cosine", plan, folder, None), folder, None
        return self[kind]


@pytest.fixture(scope="module")
def built(vectors: Floats, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Indexes:
    return Indexes(vectors, tmp_path_factory.mktemp("indexes"), lambda: request.getfixturevalue("tables"))


@pytest.fixture(scope="module")
def tables(postgres_server: str) -> Iterator[VectorTables]:
    with postgres.database(postgres_server) as url:
        database = Database.open(url)
        metadata.create_all(database.engine)
        yield VectorTables(database)
        database.engine.dispose()


def faiss_kind(kind: str) -> Kind:
    return next(known for known in KINDS if known == kind.removeprefix("pgvector-"))


def in_order(vectors: Floats, kind: str) -> Floats:
    """The vectors by position in an index of a kind."""
    ordered = np.empty_like(vectors)
    ordered[Plan.of(COUNT, DIM, IndexOptions(faiss_kind(kind))).order(COUNT)] = vectors
    return ordered


@pytest.mark.parametrize("kind", [*KINDS, *ON_PGVECTOR])
def test_recall_of_new_queries_is_what_was_measured(
    built: Indexes, kind: str, vectors: Floats, queries: Floats
) -> None:
    made, _, _ = built[kind]
    truth = Truth.of(queries, in_order(vectors, kind), "cosine")
    recall = truth.recalls(made.index.search(queries, 10).positions).mean()
    assert made.recall >= 0.97 and recall >= 0.96
    assert made.index.count == COUNT


@pytest.mark.parametrize("kind", [*KINDS, *ON_PGVECTOR])
def test_an_index_read_from_disk_or_mapped_finds_what_was_built(
    built: Indexes, kind: str, queries: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, folder, table = built[kind]
    assert sorted(made.files) == sorted(path.name for path in folder.iterdir())
    expected = made.index.search(queries, 20)
    for mapped_from in (2**30, 0):
        monkeypatch.setattr(engine, "MAPPED_FROM", mapped_from)
        read = read_index(folder, made.index.factory, made.index.parameters, table)
        found = read.search(queries, 20)
        np.testing.assert_array_equal(found.positions, expected.positions)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
        positions = np.array([0, 5, COUNT - 1])
        np.testing.assert_array_equal(read.vectors_at(positions), made.index.vectors_at(positions))


@pytest.mark.parametrize("kind", [*KINDS, *ON_PGVECTOR])
def test_stored_vectors_and_scores_are_those_of_the_catalogue(
    built: Indexes, kind: str, vectors: Floats, queries: Floats
) -> None:
    """A position's vector is the one that was given for it, held-out ones included."""
    made, _, _ = built[kind]
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
@pytest.mark.parametrize("kind", [*APPROXIMATE, "pgvector-hnsw"])
@pytest.mark.parametrize("where", ["anywhere", "nearby", "far away"])
def test_a_filtered_search_keeps_its_recall_and_is_never_short(
    built: Indexes, kind: str, share: float, where: str, vectors: Floats, queries: Floats
) -> None:
    """Also if the items that pass are all near the query, or all far from it."""
    made, _, _ = built[kind]
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


@pytest.mark.parametrize("share", [0.5, 0.05, 0.005])
def test_a_walk_that_looks_cheap_is_never_short(
    built: Indexes, share: float, vectors: Floats, queries: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if comparing every vector took long: what passes a filter is found by walking on."""
    walks: list[int] = []
    monkeypatch.setattr(PgvectorIndex, "cost", lambda self, effort: walks.append(1) or float(effort > 2000))
    monkeypatch.setattr(PgvectorIndex, "cost_of_all", lambda self, allowed: 1.0)
    made, _, _ = built["pgvector-hnsw"]
    ordered = in_order(vectors, "pgvector-hnsw")
    mask = np.random.default_rng(3).random(COUNT) < share
    found = made.index.search(queries[:20], 10, Allowed(mask))
    exact = exact_neighbours(queries[:20], ordered, 10, "cosine", np.flatnonzero(mask))
    assert walks and mask[found.positions].all() and (found.positions >= 0).all()
    assert (found.scores >= exact.scores[:, -1:] - 2e-3).mean() >= 0.95


@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])
@pytest.mark.parametrize("kind", ON_PGVECTOR)
def test_exact_search_in_a_table_is_brute_force_in_64_bits(
    built: Indexes, kind: str, share: float, queries: Floats
) -> None:
    """Over the stored vectors, whether all rows are read or the allowed ones are fetched."""
    made, _, _ = built[kind]
    stored = made.index.vectors_at(np.arange(COUNT)).astype(np.float64)
    mask = np.random.default_rng(4).random(COUNT) < share
    scores = np.where(mask, queries[:5].astype(np.float64) @ stored.T, -np.inf)
    found = made.index.search_exactly(queries[:5], 30, None if share == 1 else Allowed(mask))
    np.testing.assert_allclose(found.scores, -np.sort(-scores, axis=1)[:, :30], atol=1e-6)
    np.testing.assert_array_equal(found.positions, np.argsort(-scores, axis=1)[:, :30])


@pytest.mark.parametrize("k", [1, 4, 8])
def test_a_few_results_under_a_filter_from_a_graph_that_keeps_few_candidates(
    built: Indexes, k: int, vectors: Floats, queries: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first attempt keeps fewer candidates than recall is measured with."""
    made, folder, _ = built["hnsw"]
    monkeypatch.setattr(engine, "VISITED", 0.01)  # as if the graph were large
    index = read_index(folder, made.index.factory, {"ef": 16})
    allowed = Allowed(np.arange(COUNT) % 2 == 0)
    found = index.search(queries, k, allowed)
    exact = index.search_exactly(queries, k, allowed)
    assert found.positions.shape == (len(queries), k)
    assert (found.scores >= exact.scores[:, -1:] - 1e-6).mean() > 0.9


@pytest.mark.parametrize("kind", [*APPROXIMATE, "pgvector-hnsw"])
def test_pages_of_one_depth_do_not_overlap(built: Indexes, kind: str, queries: Floats) -> None:
    """The first results stay the same when more of them are asked for."""
    made, _, _ = built[kind]
    base = made.index.parameters["ef" if "hnsw" in kind else "candidates"]
    short = made.index.search(queries, base // 4)
    long = made.index.search(queries, base // 2)
    np.testing.assert_array_equal(short.positions, long.positions[:, : base // 4])


@pytest.mark.parametrize("kind", [*APPROXIMATE, "pgvector-hnsw"])
def test_as_many_results_as_the_index_holds(built: Indexes, kind: str, queries: Floats) -> None:
    made, _, _ = built[kind]
    found = made.index.search(queries[:2], COUNT + 5)
    assert found.positions.shape == (2, COUNT)
    assert all(sorted(row) == list(range(COUNT)) for row in found.positions.tolist())
    nothing = made.index.search(queries[:2], 3, Allowed(np.zeros(COUNT, dtype=bool)))
    assert (nothing.positions == -1).all() and nothing.positions.shape == (2, 3)


@pytest.mark.parametrize("kind", [*APPROXIMATE, "pgvector-flat", pytest.param("pgvector-hnsw", marks=pytest.mark.slow)])
def test_distances_of_l2_and_odd_dimensions(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    vectors, queries = catalogue(LEAST_APPROXIMATE, 7, "l2", 0), catalogue(30, 7, "l2", 1)
    plan = Plan.of(len(vectors), 7, IndexOptions(faiss_kind(kind), 0.95))
    tables = request.getfixturevalue("tables") if kind in ON_PGVECTOR else None
    with nullcontext() if tables is None else tables.new(2, 1, "l2") as table:
        made = build_index(vectors, "l2", plan, tmp_path, table)
        found = made.index.search(queries, 10)
    distances = np.linalg.norm(queries[:, None] - vectors[found.positions], axis=2)
    np.testing.assert_allclose(-found.scores, distances, atol=2e-2)
    assert Truth.of(queries, vectors, "l2").recalls(found.positions).mean() > 0.9


def test_numbers_that_16_bits_cannot_hold_are_compared_with_32(tmp_path: Path) -> None:
    vectors = catalogue(LEAST_APPROXIMATE, 7, "l2", 0) * 1e5
    made = build_index(vectors, "l2", Plan.of(len(vectors), 7, IndexOptions("ivf-pq")), tmp_path, None)
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


def test_an_index_of_another_kind_than_its_manifest_says_is_refused(built: Indexes, tmp_path: Path) -> None:
    _, folder, _ = built["hnsw"]
    with pytest.raises(CorruptError, match=r"index\.faiss: holds an IndexHNSWSQ, but the manifest says Flat"):
        read_index(folder, "Flat", {})
    made, folder, _ = built["ivf-pq"]
    (tmp_path / INDEX).write_bytes((folder / INDEX).read_bytes())
    (tmp_path / VECTORS).write_bytes(b"gone")
    with pytest.raises(CorruptError, match=r"vectors\.faiss: not a readable FAISS index"):
        read_index(tmp_path, made.index.factory, made.index.parameters)
