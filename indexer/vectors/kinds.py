"""Kinds of index: which one suits a collection, its files and FAISS factory string, and what it needs.

- `flat` holds 32 bits a number and compares every vector.
- `hnsw` holds 16 bits a number and a graph of links, along which it walks (Malkov and Yashunin: Efficient and Robust
  Approximate Nearest Neighbor Search Using Hierarchical Navigable Small World Graphs, 2018,
  https://arxiv.org/abs/1603.09320).
- `ivf` holds 16 bits a number in clusters, and compares the vectors of the nearest clusters.
- `ivf-pq` holds a code of 4 bits for every two numbers, compares the codes of the nearest clusters (Andre, Kermarrec,
  Le Scouarnec: Accelerated Nearest Neighbor Search with Quick ADC, 2017, https://arxiv.org/abs/1704.07355), and then
  the best ones with their vectors, of which 16 bits a number are in a mapped file.
"""

from __future__ import annotations

import os
from math import log2

from indexer.vectors import IndexOptions, Kind

INDEX = "index.faiss"  # file of an index
VECTORS = "vectors.faiss"  # file beside an index of clusters
FLAT_NUMBERS = 8 * 10**6  # numbers that are compared one by one in about 2 ms on one core
HNSW_UP_TO = 3 * 10**6  # vectors; a graph of more would take hours to build on a few cores
LINKS = 32  # of each vector in a graph; twice that at its lowest level
MEMORY_SHARE = 0.25  # of the machine's memory, for the index of a collection that says nothing else
RECALL = 0.99  # default target
CODED_NUMBERS = 2  # numbers of a vector that share a code of 4 bits


def chosen_kind(count: int, dim: int, options: IndexOptions) -> Kind:
    """The kind of index for `count` vectors `(dim,)`.

    Exact search while it is fast enough, then a graph, then compressed clusters where the graph would not fit.
    """
    if options.kind is not None:
        return options.kind
    memory = options.memory if options.memory is not None else default_memory()
    if count * dim <= FLAT_NUMBERS and index_bytes("flat", count, dim) <= memory:
        return "flat"
    fits = index_bytes("hnsw", count, dim) <= memory
    return "hnsw" if count <= HNSW_UP_TO and fits else "ivf-pq"


def index_bytes(kind: Kind, count: int, dim: int) -> int:
    """Approximate bytes in memory of an index, without files that are mapped."""
    numbers = count * dim
    if kind == "flat":
        return 4 * numbers
    if kind == "hnsw":
        return 2 * numbers + count * (4 * 2 * LINKS + 12)
    clusters = 4 * dim * clusters_of(count)
    if kind == "ivf":
        return 2 * numbers + 8 * count + clusters
    return count * -(-_codes(dim) // 2) + 8 * count + clusters


def factory_of(kind: Kind, count: int, dim: int) -> str:
    """The FAISS factory string of an index."""
    if kind == "flat":
        return "Flat"
    if kind == "hnsw":
        return f"HNSW{LINKS},SQfp16"
    clusters = f"IVF{clusters_of(count)}"
    return f"{clusters},SQfp16" if kind == "ivf" else f"{clusters},PQ{_codes(dim)}x4fs"


def _codes(dim: int) -> int:
    """Number of 4-bit codes of a vector; all of them must cover equally many numbers."""
    return dim // CODED_NUMBERS if dim % CODED_NUMBERS == 0 else dim


def clusters_of(count: int) -> int:
    """Number of clusters: the power of two next to four times the root of the count, and few if the count is small."""
    wanted = min(4 * count**0.5, count / 4)
    return int(2 ** max(2, round(log2(max(wanted, 1)))))


def default_memory() -> int:
    """Bytes of an index unless a collection says otherwise: a quarter of the machine's memory."""
    return int(MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
