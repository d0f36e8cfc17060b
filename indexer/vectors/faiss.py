"""FAISS behind the `VectorIndex` protocol. Scores are inner products for cosine, negated distances for L2.

Approximate indexes are searched with the effort that reached the recall target on held-out queries, and with more for
deep pages. Under a filter, the effort is raised by the share of vectors that pass it. What passes may be far from the
query, where more effort is needed, so it is doubled until twice the effort finds the same; once that would cost more
than comparing every allowed vector, those are compared. A filtered search never returns fewer hits than exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.errors import CorruptError
from indexer.vectors import Allowed, Floats, Ints, Kind, Neighbours
from indexer.vectors.engines import INDEX, VECTORS
from indexer.vectors.exact import RECALL_AT, exact_neighbours, exact_scores
from training.reference import Metric, first_line

BLOCK = 2**20  # bytes per write to a file
MAPPED_FROM = 2**30  # bytes of an index file that is mapped and not read into memory
MORE = 2  # times the effort, until a filtered search finds nothing better
# Costs in comparisons of one vector of 16 bits with a query, in a row over all of them.
SCATTERED = 3.0  # of a vector somewhere in memory
CODED = 0.1  # of a product-quantised code
COMPARED = 12  # vectors that a graph's walk compares for each one that it keeps

Rows = NDArray[np.floating]
library: Any = faiss  # its type stubs describe the C++ signatures, not the Python wrappers


class FaissIndex:
    """A FAISS index that is built or read once and never modified; many threads may search it.

    Args:
        vectors: `(n, dim)` of 16 bits, which an index of clusters is compared exactly with; others contain them.
        parameters: `ef` of a graph; `probes` of clusters, and `candidates` that are compared exactly after their codes.
    """

    def __init__(
        self,
        index: Any,
        factory: str,
        *,
        vectors: Rows | None = None,
        parameters: Mapping[str, int] | None = None,
    ) -> None:
        self._index = index
        self.factory = factory
        self.parameters: Mapping[str, int] = dict(parameters or {})
        self._kind = kind_of(factory)
        self._vectors = vectors
        if self._kind == "hnsw":
            storage = library.downcast_index(library.downcast_index(index).storage)
            codes = library.rev_swig_ptr(storage.codes.data(), storage.codes.size())
            self._vectors = codes.view(np.float16).reshape(-1, index.d)

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
        try:
            index = library.read_index(str(path), library.IO_FLAG_MMAP_IFC if _is_large(path) else 0)
        except RuntimeError as exc:
            raise CorruptError(f"{path}: not a readable FAISS index; run `nitamono repair`") from exc
        kind, vectors = kind_of(factory), None
        expected = {"hnsw": faiss.IndexHNSW, "flat": faiss.IndexFlat}.get(kind, faiss.IndexIVF)
        if not isinstance(index, expected):
            raise CorruptError(f"{path}: holds an {type(index).__name__}, but the manifest says {factory}")
        if kind in ("ivf", "ivf-pq"):
            path = directory / VECTORS
            try:
                vectors = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as exc:
                raise CorruptError(f"{path}: cannot be read ({first_line(exc)})") from exc
        return cls(index, factory, vectors=vectors, parameters=parameters)

    @property
    def count(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        return int(self._index.d)

    @property
    def metric(self) -> Metric:
        return "l2" if self._index.metric_type == faiss.METRIC_L2 else "cosine"

    def write(self, path: Path) -> None:
        """Write an index file; raises `OSError` if the disk is full."""
        with path.open("wb") as file:  # FAISS does not notice when closing a file of its own fails
            library.write_index(self._index, library.PyCallbackIOWriter(file.write, BLOCK))

    def vectors_at(self, positions: Ints) -> Floats:
        if self._vectors is not None:
            return np.asarray(self._vectors[positions], np.float32)
        vectors: Floats = self._index.reconstruct_batch(np.ascontiguousarray(positions, dtype=np.int64))
        return vectors

    def search(self, queries: Floats, k: int, allowed: Allowed | None = None) -> Neighbours:
        k = min(k, self.count)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if k == 0:
            return Neighbours(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))
        if self._vectors is None:
            return self._collect(queries, k, library.SearchParameters(sel=_selector(allowed)))
        if allowed is None:
            return self._unfiltered(queries, k, self._vectors)
        return _padded(self._filtered(queries, min(k, allowed.count), allowed, self._vectors), k)

    def _unfiltered(self, queries: Floats, k: int, vectors: Rows) -> Neighbours:
        depth = self._depth(k)
        while self.cost(depth) < self.count:
            found = self._proposed(queries, min(self._candidates * depth, self.count), depth, None)
            if (found.positions[:, k - 1] >= 0).all():
                return _first(found, k)
            depth *= MORE
        return exact_neighbours(queries, vectors, k, self.metric)

    def _filtered(self, queries: Floats, k: int, allowed: Allowed, vectors: Rows) -> Neighbours:
        selector = _selector(allowed)
        depth, before = self._depth(k) / MORE, None
        while self.cost(effort := depth * self.count / max(allowed.count, 1)) < allowed.count * SCATTERED:
            found = self._proposed(queries, min(int(self._candidates * depth), allowed.count), effort, selector)
            if (found.positions >= 0).all():
                if before is not None and _is_as_good(before, found):
                    return _first(found, k)
                before = found
            depth *= MORE
        return exact_neighbours(queries, vectors, k, self.metric, allowed.positions)

    @property
    def _candidates(self) -> int:
        return self.parameters["ef" if self._kind == "hnsw" else "candidates"]

    def _depth(self, k: int) -> int:
        """Times the tuned effort for `k` neighbours.

        It is the same for all pages of a depth: they are cut from the same candidates, so that they do not overlap.
        """
        depth = 1
        while self._candidates * depth < 2 * k:
            depth *= MORE
        return depth

    def cost(self, effort: float) -> float:
        """What a search for one query costs, about, in comparisons of vectors in a row."""
        if self._kind == "hnsw":
            return self.parameters["ef"] * effort * COMPARED * SCATTERED
        clusters = int(self._index.nlist)
        members = self.count / clusters * min(clusters, self.parameters["probes"] * effort)
        if self._kind == "ivf":
            return clusters + members
        return clusters + members * CODED + self.parameters["candidates"] * SCATTERED

    def _proposed(self, queries: Floats, candidates: int, effort: float, selector: Any) -> Neighbours:
        """The best `candidates` that a search with a multiple of the tuned effort finds, -1 where it finds fewer."""
        if self._kind == "hnsw":
            ef = max(candidates, int(np.ceil(self.parameters["ef"] * effort)))
            return self._collect(queries, candidates, library.SearchParametersHNSW(efSearch=ef, sel=selector))
        probes = min(int(self._index.nlist), int(np.ceil(self.parameters["probes"] * effort)))
        found = self._collect(queries, candidates, library.SearchParametersIVF(nprobe=probes, sel=selector))
        return self._rescored(queries, found) if self._kind == "ivf-pq" else found

    def _collect(self, queries: Floats, k: int, parameters: Any) -> Neighbours:
        scores, positions = self._index.search(queries, k, params=parameters)
        if self._index.metric_type == faiss.METRIC_L2:
            scores = -np.sqrt(np.maximum(scores, 0.0))
        elif self._vectors is not None:
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


def _is_large(path: Path) -> bool:
    return path.is_file() and path.stat().st_size >= MAPPED_FROM


def _selector(allowed: Allowed | None) -> Any:
    return None if allowed is None else library.IDSelectorBitmap(allowed.bits)


def _is_as_good(before: Neighbours, found: Neighbours) -> bool:
    """Whether the best neighbours, as many as recall is measured with, were as good before."""
    return bool(np.allclose(before.scores[:, :RECALL_AT], found.scores[:, :RECALL_AT], atol=1e-6))


def _first(found: Neighbours, k: int) -> Neighbours:
    return Neighbours(found.scores[:, :k], found.positions[:, :k])


def _padded(found: Neighbours, k: int) -> Neighbours:
    """`(nq, k)`, with -1 at the end where fewer positions are allowed."""
    lacking = ((0, 0), (0, k - found.positions.shape[1]))
    return Neighbours(
        np.pad(found.scores, lacking, constant_values=-np.inf),
        np.pad(found.positions, lacking, constant_values=-1),
    )
