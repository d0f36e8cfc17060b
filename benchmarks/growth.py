"""How building and searching an index grow with a collection:
`python benchmarks/growth.py VECTORS QUERIES [--counts 10000 30000 100000] [--kinds flat hnsw ivf-pq]`.

VECTORS and QUERIES are .npy files of unit vectors, as `benchmarks/many_latents.py` writes them. Each kind is built from
the first vectors, as many as each count says, tuned to a recall@10 of .99, and asked one query at a time on one thread,
in a process of its own. Prints a Markdown table: processor time to build, the index's files, the process's own memory
during the build, recall, median and 99th percentile of a search; and the exponent with which each grows, from a
straight line through the logarithms.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import faiss
import numpy as np
from index_kinds import resident

from indexer.vectors import IndexOptions, Kind
from indexer.vectors.building import Plan, build_index
from indexer.vectors.engines import read_index
from indexer.vectors.exact import RECALL_AT, Truth

COLUMNS = ("build, s", "files, MB", "memory, MB", "p50, us", "p99, us")


def measure(kind: Kind, count: int, asked: argparse.Namespace) -> tuple[float, list[float]]:
    """Recall@10, and what grows, in the order of `COLUMNS`."""
    faiss.omp_set_num_threads(1)
    vectors = np.load(asked.vectors, mmap_mode="r")[:count]
    queries = np.load(asked.queries)[: asked.limit]
    plan = Plan.of(count, vectors.shape[1], IndexOptions(kind, 0.99))
    before = resident()
    with TemporaryDirectory() as folder:
        began = time.process_time()
        made = build_index(vectors, "cosine", plan, Path(folder)).index
        build, memory = time.process_time() - began, resident() - before
        files = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
        index = read_index(Path(folder), made.factory, made.parameters)
        index.search(queries[:1], RECALL_AT)
        found, took = [], []
        for query in queries:
            began = time.process_time()
            found.append(index.search(query[None], RECALL_AT).positions[0])
            took.append((time.process_time() - began) * 1e6)
        recall = float(Truth.of(queries, vectors, "cosine").recalls(np.stack(found)).mean())
    return recall, [build, files, memory, *np.percentile(took, [50, 99]).tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vectors", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--kinds", nargs="+", default=["flat", "hnsw", "ivf-pq"])
    parser.add_argument("--limit", type=int, default=500, help="Number of queries.")
    asked = parser.parse_args()
    print(f"| | vectors | recall@10 | {' | '.join(COLUMNS)} |", "|---" * (3 + len(COLUMNS)) + "|", sep="\n")
    for kind in asked.kinds:
        grown = []
        for count in asked.counts:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                recall, values = pool.apply(measure, (kind, count, asked))
            grown.append(values)
            cells = " | ".join(f"{value:,.1f}" if value < 10 else f"{value:,.0f}" for value in values)
            print(f"| `{kind}` | {count:,} | {recall:.3f} | {cells} |", flush=True)
        slopes = np.polyfit(np.log(asked.counts), np.log(np.maximum(grown, 1e-3)), 1)[0]
        print(f"| `{kind}` | exponent | | {' | '.join(f'{slope:.2f}' for slope in slopes)} |", flush=True)


if __name__ == "__main__":
    main()
