"""Recall against cost of index kinds, ours beside others: `python benchmarks/index_kinds.py VECTORS QUERIES OUT`.

VECTORS and QUERIES are .npy files of unit vectors, as `benchmarks/many_latents.py` writes them. Each engine is built
once and searched with rising effort, one query at a time on one thread; costs are processor time, which a busy machine
changes less than the clock. Rivals that are not installed are left out (hnswlib, usearch). Prints a Markdown table, and
writes OUT/index-kinds.json. Memory is the growth of the process while an index is built or
read, in a process of its own for each engine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faiss
import numpy as np

from indexer.vectors import Floats, IndexOptions, Ints, Kind
from indexer.vectors.building import Plan, build_index
from indexer.vectors.engines import read_index
from indexer.vectors.exact import RECALL_AT, Truth

LINKS, BUILDING_EF = 32, 100
EFFORTS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768)
TARGETS = (0.95, 0.99)

Search = Callable[[Floats], Ints]  # one query to positions


def ours(kind: Kind, vectors: Floats, folder: Path) -> Iterator[tuple[int, Search]]:
    """Built as `nitamono index` does; then searched with its own effort, and with others."""
    made = build_index(vectors, "cosine", Plan.of(len(vectors), vectors.shape[1], IndexOptions(kind)), folder).index
    yield 0, lambda query: made.search(query, RECALL_AT).positions[0]
    factory, tuned = made.factory, dict(made.parameters)
    for effort in EFFORTS if tuned else ():
        changed = {"ef": effort} if kind == "hnsw" else {**tuned, "probes": effort}
        index = read_index(folder, factory, changed)
        yield effort, lambda query, index=index: index.search(query, RECALL_AT).positions[0]  # type: ignore[misc]


def bare_faiss(factory: str, vectors: Floats, folder: Path) -> Iterator[tuple[int, Search]]:
    library: Any = faiss
    index = library.index_factory(vectors.shape[1], factory, library.METRIC_INNER_PRODUCT)
    if factory.startswith("HNSW"):
        index.hnsw.efConstruction = BUILDING_EF
    index.train(vectors[:: max(1, len(vectors) // 100_000)])
    index.add(vectors)
    for effort in EFFORTS if factory != "Flat" else (0,):
        kind = library.SearchParametersHNSW if factory.startswith("HNSW") else library.SearchParametersIVF
        parameters = None
        if effort:
            parameters = kind(efSearch=effort) if factory.startswith("HNSW") else kind(nprobe=effort)
        yield effort, lambda query, p=parameters: index.search(query, RECALL_AT, params=p)[1][0]  # type: ignore[misc]


def hnswlib(vectors: Floats, folder: Path) -> Iterator[tuple[int, Search]]:
    index = import_module("hnswlib").Index("ip", vectors.shape[1])
    index.init_index(len(vectors), ef_construction=BUILDING_EF, M=LINKS // 2)
    index.add_items(vectors, num_threads=1)
    for effort in EFFORTS:
        index.set_ef(effort)
        yield effort, lambda query: index.knn_query(query, RECALL_AT, num_threads=1)[0][0].astype(np.int64)


def usearch(vectors: Floats, folder: Path) -> Iterator[tuple[int, Search]]:
    make = import_module("usearch.index").Index
    index = make(ndim=vectors.shape[1], metric="ip", dtype="f16", connectivity=LINKS // 2, expansion_add=BUILDING_EF)
    index.add(np.arange(len(vectors)), vectors, threads=1)
    for effort in EFFORTS:
        index.expansion_search = effort
        yield effort, lambda query: index.search(query[0], RECALL_AT, threads=1).keys.astype(np.int64)


ENGINES: dict[str, Callable[[Floats, Path], Iterator[tuple[int, Search]]]] = {
    **{f"ours {kind}": (lambda v, f, kind=kind: ours(kind, v, f)) for kind in ("flat", "hnsw", "ivf", "ivf-pq")},  # type: ignore[misc]
    "FAISS Flat": lambda v, f: bare_faiss("Flat", v, f),
    "FAISS HNSW16": lambda v, f: bare_faiss("HNSW16,Flat", v, f),
    "FAISS HNSW32": lambda v, f: bare_faiss("HNSW32,Flat", v, f),
    "hnswlib": hnswlib,
    "usearch": usearch,
}


def resident() -> float:
    """Megabytes of this process that are its own, without mapped files."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1000


def measure(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    faiss.omp_set_num_threads(1)
    vectors = np.load(asked.vectors, mmap_mode="r")[: asked.count]
    queries = np.load(asked.queries)[: asked.limit]
    truth = Truth.of(queries, vectors, "cosine")
    before = resident()
    curve, build, megabytes = [], None, 0.0
    with TemporaryDirectory() as folder:
        began = time.process_time()
        engine = ENGINES[name](vectors, Path(folder))
        for effort, search in engine:
            if build is None:
                build, megabytes = time.process_time() - began, resident() - before
            began = time.process_time()
            found = np.stack([search(query[None]) for query in queries])
            took = (time.process_time() - began) / len(queries)
            curve.append((effort, float(truth.recalls(found).mean()), took * 1e6))
            print(f"{name}\t{effort}\t{curve[-1][1]:.4f}\t{curve[-1][2]:.0f} us", flush=True)
    return {"build": build, "megabytes": megabytes, "curve": curve}


def cost_at(curve: list[tuple[int, float, float]], target: float) -> float | None:
    """Microseconds at a recall, between the two measured points around it."""
    points = sorted((recall, cost) for effort, recall, cost in curve if effort or len(curve) == 1)
    if not points or points[-1][0] < target:
        return None
    return float(np.interp(target, [recall for recall, _ in points], [cost for _, cost in points]))


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"| | build, s | MB | {' | '.join(f'us at {target}' for target in TARGETS)} | as tuned: recall, us |",
        "|---" * (4 + len(TARGETS)) + "|",
    ]
    for name, one in found.items():
        costs = " | ".join("-" if (cost := cost_at(one["curve"], t)) is None else f"{cost:.0f}" for t in TARGETS)
        tuned = next((f"{recall:.3f}, {cost:.0f}" for effort, recall, cost in one["curve"] if not effort), "")
        lines.append(f"| {name} | {one['build']:.0f} | {one['megabytes']:.0f} | {costs} | {tuned} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, help="Number of vectors; all by default.")
    parser.add_argument("--limit", type=int, default=1000, help="Number of queries.")
    parser.add_argument("--engines", nargs="+", choices=[*ENGINES], default=[*ENGINES])
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for name in asked.engines:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            try:
                found[name] = pool.apply(measure, (name, asked))
            except ImportError as exc:
                print(f"{name} is left out: {exc}")
        (asked.out / "index-kinds.json").write_text(json.dumps(found, indent=1))
    print(table(found))


if __name__ == "__main__":
    main()
