"""FAISS behind the `VectorIndex` protocol. Scores are inner products for cosine, negated distances for L2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.errors import CorruptError
from indexer.vectors import Floats, Ints, Neighbours
from training.reference import Metric

FACTORY = "Flat"
BLOCK = 2**20  # bytes per write to a file


def _only(allowed: NDArray[np.bool_]) -> Any:
    """Search parameters that restrict one call to the allowed positions."""
    library: Any = faiss  # its type stubs describe the C++ signatures, not the Python wrappers
    return library.SearchParameters(sel=library.IDSelectorBitmap(np.packbits(allowed, bitorder="little")))


class FaissIndex:
    """A FAISS index that is built or read once and never modified; many threads may search it."""

    def __init__(self, index: faiss.Index, factory: str) -> None:
        self._index = index
        self.factory = factory

    @classmethod
    def build(cls, vectors: Floats, metric: Metric) -> FaissIndex:
        """Index `vectors` `(n, dim)`, of unit norm for the cosine metric."""
        kind = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
        index = faiss.index_factory(vectors.shape[1], FACTORY, kind)
        if len(vectors):
            index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        return cls(index, FACTORY)

    @classmethod
    def read(cls, path: Path, factory: str = FACTORY) -> FaissIndex:
        """Read an index file into memory, where later damage to the file does not reach it.

        Raises:
            CorruptError: FAISS cannot read it.
        """
        try:
            return cls(faiss.read_index(str(path)), factory)
        except RuntimeError as exc:
            raise CorruptError(f"{path}: not a readable FAISS index; run `nitamono repair`") from exc

    @property
    def count(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        return int(self._index.d)

    def write(self, path: Path) -> None:
        library: Any = faiss  # see `_only`
        with path.open("wb") as file:  # FAISS does not notice when closing a file of its own fails
            library.write_index(self._index, library.PyCallbackIOWriter(file.write, BLOCK))

    def vectors_at(self, positions: Ints) -> Floats:
        index: Any = self._index
        vectors: Floats = index.reconstruct_batch(np.ascontiguousarray(positions, dtype=np.int64))
        return vectors

    def search(self, queries: Floats, k: int, allowed: NDArray[np.bool_] | None = None) -> Neighbours:
        k = min(k, self.count)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if k == 0:
            return Neighbours(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))
        parameters = _only(allowed) if allowed is not None else None
        scores, positions = self._index.search(queries, k, params=parameters)
        if self._index.metric_type == faiss.METRIC_L2:
            scores = -np.sqrt(np.maximum(scores, 0.0))
        return Neighbours(scores, positions)
