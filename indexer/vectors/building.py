"""Builds the index of a collection: chooses its kind, holds queries out, tunes its search, and measures its recall.

An approximate index is first built without `HELD_OUT` vectors, which are queries that it has never seen. The search is
tuned to the recall target with one half of them, and its recall measured with the other. Then they are added.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.vectors import LARGEST_HALF, Floats, IndexOptions, Kind, VectorIndex
from indexer.vectors.exact import RECALL_AT, Truth, recall_against_exact
from indexer.vectors.faiss import FaissIndex, library, metric_type, read_mapped
from indexer.vectors.kinds import INDEX, RECALL, VECTORS, chosen_kind, clusters_of, factory_of
from training.reference import Metric

logger = logging.getLogger("nitamono")

HELD_OUT = 1024  # vectors
LEAST_APPROXIMATE = 4 * HELD_OUT  # vectors; fewer are always compared one by one
BUILDING_EF = 100  # candidates for the links of a vector in a graph
TRAINED_PER_CLUSTER = 64  # vectors that clusters and codes are fitted to
ROWS = 50_000  # vectors added at a time
EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
PROBES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
CANDIDATES = (32, 64, 128, 256, 512)
HIGHEST = 0.9995  # recall that is tuned to at most: a target of 1 would only be reached by exact search


ChooseKind = Callable[[int, int, IndexOptions], Kind]  # of so many vectors `(dim,)`


class Plan(NamedTuple):
    """How an index of `count` vectors is built; `held_out` of them come last."""

    kind: Kind
    held_out: int
    recall: float

    @classmethod
    def of(cls, count: int, dim: int, options: IndexOptions, choose: ChooseKind = chosen_kind) -> Plan:
        kind = choose(count, dim, options) if count >= LEAST_APPROXIMATE else "flat"
        return cls(kind, 0 if kind == "flat" else HELD_OUT, options.recall if options.recall is not None else RECALL)

    def order(self, count: int) -> NDArray[np.int64]:
        """Position `(count,)` of each vector: in the given order, but the held-out ones last."""
        held_out = np.zeros(count, dtype=bool)
        held_out[np.random.default_rng(0).permutation(count)[: self.held_out]] = True
        positions = np.empty(count, np.int64)
        positions[~held_out] = np.arange(count - self.held_out)
        positions[held_out] = np.arange(count - self.held_out, count)
        return positions


@dataclass(frozen=True)
class Built:
    """An index, the names of its files, and its recall@10 against exact search."""

    index: VectorIndex
    files: list[str]
    recall: float


def build_index(vectors: NDArray[np.floating], metric: Metric, plan: Plan, directory: Path) -> Built:
    """Build an index of `vectors` `(n, dim)`, which may be mapped from a file, and write its files.

    Memory besides the index is bounded by a block of vectors and the sample that clusters are fitted to.
    """
    path = directory / INDEX
    if plan.kind == "flat" or not fits_halves(vectors):
        exact = FaissIndex.exact(np.asarray(vectors, np.float32), metric)
        exact.write(path)
        return Built(exact, [INDEX], recall_against_exact(exact, vectors, metric))
    count, dim = vectors.shape
    factory = factory_of(plan.kind, count, dim)
    index = _trained(factory, vectors, metric, clusters_of(count))
    known = vectors[: count - plan.held_out]
    _add(index, known)
    has_store = plan.kind != "hnsw"
    store = _write_store(directory / VECTORS, known, metric) if has_store else None
    queries = np.asarray(vectors[count - plan.held_out :], np.float32)
    tuning, measuring = (Truth.of(half, known, metric) for half in np.array_split(queries, 2))
    parameters = _tuned(index, factory, store, tuning, plan)
    recall = warn_if_low(FaissIndex(index, factory, store=store, parameters=parameters), measuring, plan)
    _add(index, vectors[count - plan.held_out :])
    if has_store:
        store = _write_store(directory / VECTORS, vectors, metric)
    built = FaissIndex(index, factory, store=store, parameters=parameters)
    built.write(path)
    return Built(built, [INDEX, VECTORS] if has_store else [INDEX], recall)


def _trained(factory: str, vectors: NDArray[np.floating], metric: Metric, clusters: int) -> Any:
    index = library.index_factory(vectors.shape[1], factory, metric_type(metric))
    if factory.startswith("HNSW"):
        index.hnsw.efConstruction = BUILDING_EF
        return index
    wanted = min(len(vectors), TRAINED_PER_CLUSTER * clusters)
    chosen = np.sort(np.random.default_rng(1).permutation(len(vectors))[:wanted])
    index.cp.max_points_per_centroid = TRAINED_PER_CLUSTER
    index.cp.min_points_per_centroid = 1  # FAISS would warn
    index.train(np.asarray(vectors[chosen], np.float32))
    return index


def blocks_of(vectors: NDArray[np.floating]) -> Iterator[Floats]:
    """The vectors in 32 bits, a block of rows at a time."""
    for start in range(0, len(vectors), ROWS):
        yield np.ascontiguousarray(vectors[start : start + ROWS], np.float32)


def fits_halves(vectors: NDArray[np.floating]) -> bool:
    """Whether 16 bits hold every number; those of unit vectors always do."""
    return all(float(np.abs(block).max(initial=0.0)) < LARGEST_HALF for block in blocks_of(vectors))


def _add(index: Any, vectors: NDArray[np.floating]) -> None:
    for block in blocks_of(vectors):
        index.add(block)


def _write_store(path: Path, vectors: NDArray[np.floating], metric: Metric) -> Any:
    """Write vectors with 16 bits a number, a block at a time; returns the index that holds them, mapped.

    FAISS writes indexes only from memory. Its file of one vector ends in the size of its codes and the codes, and has
    the number of vectors at bytes 8 to 16; both are set to those of all vectors, and the result is read back.
    """
    count, dim = vectors.shape
    store = library.index_factory(dim, "SQfp16", metric_type(metric))
    store.add(np.zeros((1, dim), np.float32))
    head = bytearray(library.serialize_index(store).tobytes()[: -2 * dim])
    head[8:16] = count.to_bytes(8, "little")
    head[-8:] = (2 * count * dim).to_bytes(8, "little")
    path.unlink(missing_ok=True)  # an earlier one may be mapped
    with path.open("wb") as file:
        file.write(head)
        for block in blocks_of(vectors):
            file.write(block.astype("<f2").tobytes())
    store = read_mapped(path)
    ends = store.reconstruct_n(0, 1), store.reconstruct_n(count - 1, 1)
    if store.ntotal != count or not np.allclose(ends, [vectors[:1], vectors[-1:]], rtol=1e-3, atol=1e-3):
        raise RuntimeError(f"FAISS {faiss.__version__} has another file format than this version knows")
    return store


def _recalls(index: VectorIndex, truth: Truth) -> NDArray[np.float64]:
    return truth.recalls(index.search(truth.queries, RECALL_AT).positions)


def _reaches(index: VectorIndex, truth: Truth, plan: Plan) -> bool:
    recalls = _recalls(index, truth)
    # One standard error above the target: half of the indexes would otherwise end below it.
    return bool(recalls.mean() - recalls.std() / len(recalls) ** 0.5 >= min(plan.recall, HIGHEST))


def warn_if_low(index: VectorIndex, truth: Truth, plan: Plan) -> float:
    """The recall@10 of a tuned index, with a warning if it is far from the target."""
    recall = float(_recalls(index, truth).mean())
    if recall < plan.recall - 0.01:
        logger.warning("the %s index reaches a recall@10 of %.3f; %.3f was asked for", plan.kind, recall, plan.recall)
    return recall


def least_effort(values: Sequence[int], made: Callable[[int], VectorIndex], truth: Truth, plan: Plan) -> int | None:
    """The least of ascending values whose index reaches the recall target, if any does; greater ones do so too."""
    place = bisect_left(range(len(values)), True, key=lambda place: _reaches(made(values[place]), truth, plan))
    return values[place] if place < len(values) else None


def _tuned(index: Any, factory: str, store: Any, truth: Truth, plan: Plan) -> dict[str, int]:
    """The least effort that reaches the recall target, or the greatest if none does."""

    def made(parameters: dict[str, int]) -> FaissIndex:
        return FaissIndex(index, factory, store=store, parameters=parameters)

    def of_clusters(compared: int, probes: int) -> FaissIndex:
        return made({"probes": probes, "candidates": compared})

    if plan.kind == "hnsw":
        ef = least_effort(EFFORTS, lambda ef: made({"ef": ef}), truth, plan)
        return {"ef": ef if ef is not None else EFFORTS[-1]}
    probes = [number for number in PROBES if number <= index.nlist]
    candidates = CANDIDATES if plan.kind == "ivf-pq" else CANDIDATES[:1]
    reaching = [
        {"probes": found, "candidates": compared}
        for compared in candidates
        if (found := least_effort(probes, partial(of_clusters, compared), truth, plan)) is not None
    ]
    if not reaching:
        return {"probes": probes[-1], "candidates": candidates[-1]}
    return min(reaching, key=lambda parameters: made(parameters).cost(1.0))
