"""Searches while a tenth of a collection is written anew:
`python benchmarks/churn.py VECTORS QUERIES [--count 50000] [--share 0.1] [--rate 20] [--seconds 60] [--kind hnsw]
[--database-url URL]`.

VECTORS and QUERIES are .npy files of unit vectors, as `benchmarks/many_latents.py` writes them. A collection of
`--count` of them is searched at a constant rate. Meanwhile, for `--seconds`, items are deleted and others added one by
one, each in a transaction of its own, as over HTTP: half of `--share` of the collection each. Then the live items are
folded into a new generation by a process of low priority, while searches go on. Latencies are measured from the time
when a search was due. With a database URL of PostgreSQL and NITAMONO_VECTORS=pgvector, vectors are searched there.
Prints a Markdown table with, for each phase, latency, recall@10 against exact search in what the collection held then,
answers with fewer results, and results that had been deleted before their search began.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from indexer.catalogue.home import Home
from indexer.catalogue.records import EncoderRecord, ImageWrite
from indexer.generations.build import build_generation
from indexer.search.searcher import Searcher
from indexer.vectors import Floats, IndexOptions, Kind

COLLECTION, ENCODER = "churn", "0" * 64
BATCH, K = 5000, 10
SETTLE = 10.0  # seconds of searches before the first write, and after the last generation
NICENESS = 10  # of the process that folds, as in `service.folding`
TIE = 1e-3  # score within which neighbours are as good: of 16 bits a number


@dataclass
class Contents:
    """What the collection holds, as its writer knows: which rows of the vectors, and when each was deleted."""

    present: np.ndarray
    deleted_at: dict[int, float] = field(default_factory=dict)


@dataclass
class Answer:
    phase: str
    began: float
    seconds: float
    query: int
    rows: list[int]
    scores: list[float]
    best: float  # score of the K-th best of exact search


def encoder_of(dim: int) -> EncoderRecord:
    return EncoderRecord(ENCODER, "vae", dim, "cosine", {}, {})


def write(home: Home, collection: int, vectors: Floats, first: int, *, live: bool) -> None:
    writes = [
        ImageWrite(item_id=str(row), uri=f"photo-{row}", kind="added", status="ok", sha256=f"{row:064x}", vector=vector)
        for row, vector in enumerate(vectors, first)
    ]
    home.catalogue.images.write(collection, ENCODER, writes, live=live)


def build(path: Path, url: str | None, dim: int) -> None:
    with Home.open(path, database_url=url) as home, home.lock(f"collection-{COLLECTION}"):
        build_generation(home, COLLECTION, encoder_of(dim))


def fold(path: Path, url: str | None, dim: int) -> None:
    os.nice(NICENESS)
    build(path, url, dim)


class Searches(threading.Thread):
    """Searches at a constant rate until it is stopped."""

    def __init__(self, home: Home, vectors: Floats, queries: Floats, rate: float, contents: Contents) -> None:
        super().__init__()
        self._searcher = Searcher(home)
        self._vectors, self._queries, self._contents = vectors, queries, contents
        self._rate = rate
        self.phase = "quiet"
        self.answers: list[Answer] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        self._searcher.search_vector(COLLECTION, self._queries[0].tolist())  # loads the generation
        due, number = time.perf_counter(), 0
        while not self.stopped.is_set():
            time.sleep(max(0.0, due - time.perf_counter()))
            phase, began, query = self.phase, time.perf_counter(), number % len(self._queries)
            page = self._searcher.search_vector(COLLECTION, self._queries[query].tolist(), k=K)
            seconds = time.perf_counter() - due
            scores = self._vectors @ self._queries[query]
            best = float(np.partition(scores[self._contents.present], -K)[-K])
            rows = [int(hit.item_id) for hit in page.results]
            self.answers.append(Answer(phase, began, seconds, query, rows, [hit.score for hit in page.results], best))
            due, number = max(due + 1.0 / self._rate, time.perf_counter()), number + 1

    def table(self) -> str:
        lines = ["| phase | searches | p50, ms | p99, ms | max, ms | recall@10 | short | deleted |", "|---" * 8 + "|"]
        for phase in dict.fromkeys(answer.phase for answer in self.answers):
            found = [answer for answer in self.answers if answer.phase == phase]
            took = np.array([answer.seconds for answer in found]) * 1000
            recall = np.mean([np.mean([score >= answer.best - TIE for score in answer.scores]) for answer in found])
            gone = sum(self._contents.deleted_at.get(row, np.inf) < a.began for a in found for row in a.rows)
            lines.append(
                f"| {phase} | {len(found)} | {np.median(took):.1f} | {np.percentile(took, 99):.1f} | {took.max():.1f} "
                f"| {recall:.3f} | {sum(len(answer.rows) < K for answer in found)} | {gone} |"
            )
        return "\n".join(lines)


def churn(home: Home, collection: int, vectors: Floats, count: int, seconds: float, contents: Contents) -> None:
    """Delete and add items in turn, evenly over a time; the first rows go, and those after `count` come."""
    changes, began = len(vectors) - count, time.perf_counter()
    gone = np.random.default_rng(0).permutation(count)[:changes]
    for number, row in enumerate(gone.tolist()):
        time.sleep(max(0.0, began + number * seconds / changes - time.perf_counter()))
        contents.present[row] = False  # before: a search at this moment may or may not have it
        home.catalogue.items.delete(collection, [str(row)])
        contents.deleted_at[row] = time.perf_counter()
        write(home, collection, vectors[count + number : count + number + 1], count + number, live=True)
        contents.present[count + number] = True


def measure(folder: Path, asked: argparse.Namespace) -> None:
    added = int(asked.count * asked.share / 2)
    vectors = np.ascontiguousarray(np.load(asked.vectors, mmap_mode="r")[: asked.count + added], dtype=np.float32)
    queries = np.load(asked.queries).astype(np.float32)
    contents = Contents(np.arange(len(vectors)) < asked.count)
    url, dim = asked.database_url, vectors.shape[1]
    with Home.open(folder / "home", database_url=url, create=True) as home:
        home.catalogue.encoders.put(encoder_of(dim))
        collection = home.catalogue.ensure_collection(COLLECTION)
        kind: Kind = asked.kind
        home.catalogue.collections.set_index_options(collection, IndexOptions(kind, 0.99))
        for first in range(0, asked.count, BATCH):
            write(home, collection, vectors[first : min(first + BATCH, asked.count)], first, live=False)
        build(home.path, url, dim)
        searches = Searches(home, vectors, queries, asked.rate, contents)
        searches.start()
        time.sleep(SETTLE)
        searches.phase, began = "writes", time.perf_counter()
        churn(home, collection, vectors, asked.count, asked.seconds, contents)
        wrote = time.perf_counter() - began
        searches.phase, began = "fold", time.perf_counter()
        process = multiprocessing.get_context("spawn").Process(target=fold, args=(home.path, url, dim))
        process.start()
        process.join()
        folded = time.perf_counter() - began
        searches.phase = "folded"
        time.sleep(SETTLE)
        searches.stopped.set()
        searches.join()
        live = home.catalogue.active_generations()[0][1]
    print(f"{2 * added:,} changes in {wrote:.1f} s, folded in {folded:.1f} s; {live} live items are left\n")
    print(searches.table())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vectors", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kind", default="hnsw")
    parser.add_argument("--database-url")
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), parser.parse_args())


if __name__ == "__main__":
    main()
