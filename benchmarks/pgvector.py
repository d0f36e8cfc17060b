"""pgvector beside FAISS, as `nitamono index` builds both: `python benchmarks/pgvector.py VECTORS QUERIES DATABASE_URL`.

VECTORS and QUERIES are .npy files of unit vectors, as `benchmarks/many_latents.py` writes them. The database must be
empty, and its user may add the extension. Both graphs answer each query in turn, so that what else the machine does
weighs on both; times are medians of the clock, with the round trips to the database. Prints a Markdown table: recall@10
against exact search, and milliseconds, without a filter and with filters that pass shares of the vectors at random.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import faiss
import numpy as np

from indexer.catalogue.engine import Database
from indexer.catalogue.schema import metadata
from indexer.catalogue.vector_tables import VectorTables
from indexer.vectors import Allowed, Floats, IndexOptions, VectorIndex
from indexer.vectors.building import Built
from indexer.vectors.engines import build_index, plan_index, read_index
from indexer.vectors.exact import RECALL_AT, exact_neighbours

SHARES = (1.0, 0.5, 0.05, 0.005, 0.0005)
TIE = 1e-3  # score within which neighbours are as good: of 16 bits a number


def build(vectors: Floats, tables: VectorTables, folder: Path) -> tuple[dict[str, VectorIndex], Floats]:
    """Both indexes, and the vectors in their order."""
    count, dim = vectors.shape
    found: dict[str, VectorIndex] = {}
    for engine in ("faiss", "pgvector"):
        plan = plan_index(count, dim, IndexOptions("hnsw"), engine)
        ordered = np.empty_like(vectors)
        ordered[plan.order(count)] = vectors
        began = time.perf_counter()
        if engine == "faiss":
            made: Built = build_index(ordered, "cosine", plan, folder, None)
            found[engine] = made.index
        else:
            with tables.new(1, 1, "cosine") as new:
                made = build_index(ordered, "cosine", plan, folder, new)
            table = tables.of(1, 1, "cosine")
            found[engine] = read_index(folder, made.index.factory, made.index.parameters, table)
        took = time.perf_counter() - began
        print(f"{engine}: built in {took:.1f} s, {dict(made.index.parameters)}, recall@10 {made.recall:.3f}")
    return found, ordered


def compare(indexes: dict[str, VectorIndex], vectors: Floats, queries: Floats, share: float) -> str:
    """A row of the table."""
    mask = np.random.default_rng(0).random(len(vectors)) < share
    allowed = None if share == 1 else Allowed(mask)
    exact = exact_neighbours(queries, vectors, RECALL_AT, "cosine", None if share == 1 else np.flatnonzero(mask))
    recalls: dict[str, list[float]] = {name: [] for name in indexes}
    times: dict[str, list[float]] = {name: [] for name in indexes}
    for query, scores in zip(queries, exact.scores, strict=True):
        for name, index in indexes.items():
            began = time.perf_counter()
            found = index.search(query[None], RECALL_AT, allowed)
            times[name].append(time.perf_counter() - began)
            recalls[name].append(float(np.mean(found.scores[0, : len(scores)] >= scores[-1] - TIE)))
    cells = [f"{np.mean(recalls[name]):.3f}, {1e3 * np.median(times[name]):.2f}" for name in indexes]
    ratio = np.median(times["pgvector"]) / np.median(times["faiss"])
    return f"| {100 * share:g} % | {' | '.join(cells)} | {ratio:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("database_url")
    parser.add_argument("--count", type=int, help="Number of vectors; all by default.")
    parser.add_argument("--limit", type=int, default=200, help="Number of queries.")
    asked = parser.parse_args()
    faiss.omp_set_num_threads(1)
    vectors = np.asarray(np.load(asked.vectors, mmap_mode="r")[: asked.count], np.float32)
    queries = np.load(asked.queries)[: asked.limit]
    database = Database.open(asked.database_url)
    metadata.create_all(database.engine)
    with TemporaryDirectory() as folder:
        indexes, ordered = build(vectors, VectorTables(database), Path(folder))
        print("| passes | FAISS: recall, ms | pgvector: recall, ms | ratio |\n|---|---|---|---|")
        for share in SHARES:
            print(compare(indexes, ordered, queries, share), flush=True)
    database.engine.dispose()


if __name__ == "__main__":
    main()
