"""What typicality costs a generation and a search: `python benchmarks/typicality_cost.py --count 100000 --dim 224`.

Drawn vectors in 50 groups. Prints the time to fit it beside that of the neighbour lists, the size of its file, and for
one search the core time of its arithmetic, and of searches for 4 and 20 images: for 2 and 10 ranked items.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from indexer.typicality.fit import fit_typicality
from indexer.vectors import Floats, VectorIndex
from indexer.vectors.engines import exact_index
from indexer.vectors.neighbours import nearest_others
from indexer.vectors.rerank import K1

REPEATS = 50


def median_ms(act: Callable[[int], object]) -> float:
    times = []
    for number in range(REPEATS):
        began = time.process_time()
        act(number)
        times.append(time.process_time() - began)
    return 1000 * float(np.median(times))


def search(index: VectorIndex, vectors: Floats, k: int, number: int) -> None:
    index.search(vectors[number : number + 1], k)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=224)
    parser.add_argument("--lists", action="store_true", help="time the neighbour lists too")
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(50, asked.dim))
    vectors = (centres[rng.integers(0, 50, asked.count)] + rng.normal(size=(asked.count, asked.dim))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = exact_index(vectors, "cosine")
    ids = np.stack([np.arange(asked.count)] * 2, axis=1)
    began, cpu = time.perf_counter(), time.process_time()
    model = fit_typicality(index, ids, vectors, "cosine")
    assert model is not None
    seconds, core = time.perf_counter() - began, time.process_time() - cpu
    print(f"fitted in {seconds:.1f} s, {core:.1f} core-seconds; file of {len(model.to_bytes()):,} bytes")
    if asked.lists:
        began, cpu = time.perf_counter(), time.process_time()
        nearest_others(index, vectors, K1)
        print(f"neighbour lists in {time.perf_counter() - began:.1f} s, {time.process_time() - cpu:.1f} core-seconds")
    print(f"arithmetic of a search {median_ms(lambda n: model.of(vectors[n], 0.3)):.3f} ms")
    for k in (4, 20):
        print(f"search for {k} images {median_ms(partial(search, index, vectors, k)):.3f} ms")


if __name__ == "__main__":
    main()
