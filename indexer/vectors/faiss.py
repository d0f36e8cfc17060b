"""FAISS behind the `VectorIndex` protocol. Scores are inner products for cosine, negated distances for L2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.errors import CorruptError
from indexer.vectors import Allowed, Floats, Ints, Kind, Neighbours
from indexer.vectors.approximate import ApproximateIndex
from indexer.vectors.exact import exact_neighbours, exact_scores
from indexer.vectors.kinds import INDEX, VECTORS
from training.reference import Metric

BLOCK = 2**20  # bytes per write to a file
MAPPED_FROM = 2**30  # bytes of an index file that is mapped and not read into memory
# Costs in nanoseconds on one core, measured with vectors of 128 numbers of 16 bits; only their ratios matter.
COMPARED = 0.4  # a number of vectors that are compared in a row
CHECKED = 4.0  # whether a position is allowed
SKIPPED = 5.0  # times the cost of an allowed vector that has none beside it
VISITED = 25  # vectors that a graph's walk compares for each candidate that it keeps
FETCHED = 120.0  # a vector somewhere in memory, besides comparing it
CODED = 0.1  # times the cost of a vector, of its code
UNPACKED = 3.0  # a number of a candidate that is compared exactly after its code

library: Any = faiss  # its type stubs describe the C++ signatures, not the Python wrappers


class FaissIndex(ApproximateIndex):
    """A FAISS index that is built or read once and never modified; many threads may search it.

    Args:
        store: index with the vectors, if `index` does not contain them whole.
        parameters: `ef` of a graph; `probes` of clusters, and `candidates` that are compared exactly after their codes.
    """

    def __init__(
        self, index: Any, factory: str, *, store: Any = None, parameters: Mapping[str, int] | None = None
    ) -> None:
        self._index = index
        self.factory = factory
        self.parameters: Mapping[str, int] = dict(parameters or {})
        self._kind = kind_of(factory)
        self.is_exact = self._kind == "flat"
        self._store = library.downcast_index(index.storage) if self._kind == "hnsw" else store or index
        self._rows = _rows_of(self._store)
        # FAISS takes microseconds to tell these, several times in each search.
        self.count, self.dim = int(index.ntotal), int(index.d)
        self.metric: Metric = "l2" if index.metric_type == faiss.METRIC_L2 else "cosine"
        self._clusters = int(index.nlist) if self._kind in ("ivf", "ivf-pq") else 0

    @classmethod
    def exact(cls, vectors: Floats, metric: Metric) -> FaissIndex:
        """An exact index of `vectors` `(n, dim)`, of unit norm for the cosine metric."""
        index = library.index_factory(vectors.shape[1], "Flat", metric_type(metric))
        if len(vectors):
            index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        return cls(index, "Flat")

    @classmethod
    def read(cls, directory: Path, factory: str = "Flat", parameters: Mapping[str, int] | None = None) -> FaissIndex:
        """Read an index into memory, where later damage to its file does not reach it, or map it if it is large.

        Raises:
            CorruptError: FAISS cannot read it, or it is not of the kind that the factory string says.
        """
        path = directory / INDEX
        index = read_mapped(path) if _is_large(path) else _read(path, 0)
        kind = kind_of(factory)
        _check_kind(path, index, {"hnsw": faiss.IndexHNSW, "flat": faiss.IndexFlat}.get(kind, faiss.IndexIVF), factory)
        store = None
        if kind in ("ivf", "ivf-pq"):
            store = read_mapped(directory / VECTORS)
            _check_kind(directory / VECTORS, store, faiss.IndexScalarQuantizer, factory)
        return cls(index, factory, store=store, parameters=parameters)

    def write(self, path: Path) -> None:
        """Write an index file; raises `OSError` if the disk is full."""
        with path.open("wb") as file:  # FAISS does not notice when closing a file of its own fails
            library.write_index(self._index, library.PyCallbackIOWriter(file.write, BLOCK))

    def vectors_at(self, positions: Ints) -> Floats:
        return np.asarray(self._rows[positions], np.float32)

    def search_exactly(self, queries: Floats, k: int, allowed: Allowed | None = None) -> Neighbours:
        queries, k = np.ascontiguousarray(queries, dtype=np.float32), min(k, self.count)
        if not k:
            return Neighbours(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))
        if allowed is not None and allowed.count * self.dim * UNPACKED < self.count * CHECKED:
            found = exact_neighbours(queries, self._rows, k, self.metric, allowed.positions)
            lacking = ((0, 0), (0, k - found.positions.shape[1]))
            return Neighbours(
                np.pad(found.scores, lacking, constant_values=-np.inf),
                np.pad(found.positions, lacking, constant_values=-1),
            )
        parameters = None if allowed is None else library.SearchParameters(sel=_selector(allowed))
        return self._collect(self._store, queries, k, parameters)

    @property
    def candidates(self) -> int:
        return self.parameters["ef" if self._kind == "hnsw" else "candidates"]

    def proposals(self, k: int, depth: int) -> int:
        return k if self._kind == "hnsw" else super().proposals(k, depth)

    def cost(self, effort: float) -> float:
        vector = self.dim * COMPARED
        if self._kind == "hnsw":
            return self.parameters["ef"] * effort * VISITED * (FETCHED + vector)
        members = self.count / self._clusters * min(self._clusters, self.parameters["probes"] * effort)
        if self._kind == "ivf":
            return (self._clusters + members) * vector
        candidates = self.parameters["candidates"] * (FETCHED + self.dim * UNPACKED)
        return (self._clusters + members * CODED) * vector + candidates

    def cost_of_all(self, allowed: Allowed | None) -> float:
        vector = self.dim * COMPARED
        if allowed is None:
            return self.count * vector
        share = allowed.count / self.count
        return self.count * CHECKED + allowed.count * vector * (share + SKIPPED * (1 - share))

    def proposed(self, queries: Floats, candidates: int, effort: float, allowed: Allowed | None) -> Neighbours:
        selector = None if allowed is None else _selector(allowed)
        if self._kind == "hnsw":
            ef = max(candidates, int(np.ceil(self.parameters["ef"] * effort)))
            return self._collect(
                self._index, queries, candidates, library.SearchParametersHNSW(efSearch=ef, sel=selector)
            )
        probes = min(self._clusters, int(np.ceil(self.parameters["probes"] * effort)))
        found = self._collect(
            self._index, queries, candidates, library.SearchParametersIVF(nprobe=probes, sel=selector)
        )
        return self._rescored(queries, found) if self._kind == "ivf-pq" else found

    def _collect(self, index: Any, queries: Floats, k: int, parameters: Any) -> Neighbours:
        scores, positions = index.search(queries, k, params=parameters)
        if self.metric == "l2":
            scores = -np.sqrt(np.maximum(scores, 0.0))
        elif self._kind != "flat":
            np.minimum(scores, 1.0, out=scores)  # vectors of 16 bits are a little longer or shorter than 1
        return Neighbours(scores, positions)

    def _rescored(self, queries: Floats, found: Neighbours) -> Neighbours:
        """Candidates in the order of their vectors' scores; those of their codes only proposed them."""
        scores = np.full(found.positions.shape, -np.inf, np.float32)
        for row, positions in enumerate(found.positions):
            real = positions >= 0
            scores[row, real] = exact_scores(queries[row : row + 1], self.vectors_at(positions[real]), self.metric)[0]
        order = np.argsort(-scores, axis=1, kind="stable")
        return Neighbours(np.take_along_axis(scores, order, axis=1), np.take_along_axis(found.positions, order, axis=1))


def kind_of(factory: str) -> Kind:
    """The kind of index of a factory string."""
    if factory.startswith("HNSW"):
        return "hnsw"
    if factory.startswith("IVF"):
        return "ivf-pq" if "PQ" in factory else "ivf"
    return "flat"


def metric_type(metric: Metric) -> int:
    return int(faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2)


def read_mapped(path: Path) -> Any:
    """A FAISS index whose numbers stay in its file; raises `CorruptError` if FAISS cannot read it."""
    return _read(path, library.IO_FLAG_MMAP_IFC)


def _read(path: Path, flags: int) -> Any:
    try:
        return library.read_index(str(path), flags)
    except RuntimeError as exc:
        raise CorruptError(f"{path}: not a readable FAISS index; run `nitamono repair`") from exc


def _check_kind(path: Path, index: Any, expected: type, factory: str) -> None:
    if not isinstance(index, expected):
        raise CorruptError(f"{path}: holds an {type(index).__name__}, but the manifest says {factory}")


def _rows_of(store: Any) -> NDArray[np.floating]:
    """The vectors `(n, dim)` of an index that has them one after another, without copying them."""
    kind = np.float32 if isinstance(store, faiss.IndexFlat) else np.float16
    if not store.ntotal:
        return np.empty((0, store.d), kind)
    rows: NDArray[np.floating] = library.rev_swig_ptr(store.codes.data(), store.codes.size()).view(kind)
    return rows.reshape(-1, store.d)


def _is_large(path: Path) -> bool:
    return path.is_file() and path.stat().st_size >= MAPPED_FROM


def _selector(allowed: Allowed) -> Any:
    return library.IDSelectorBitmap(allowed.bits)
