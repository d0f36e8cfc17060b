"""The recall of real searches, measured beside them."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from indexer.search.recall_probe import RecallProbe
from indexer.vectors import Allowed, IndexOptions, VectorIndex
from indexer.vectors.building import LEAST_APPROXIMATE, Plan, build_index
from indexer.vectors.engines import read_index
from indexer.vectors.faiss import FaissIndex

COUNT, DIM = LEAST_APPROXIMATE, 32
VECTORS = np.random.default_rng(0).normal(size=(COUNT, DIM)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
QUERIES = VECTORS[:40] + np.random.default_rng(1).normal(size=(40, DIM)).astype(np.float32)
QUERIES /= np.linalg.norm(QUERIES, axis=1, keepdims=True)


class Heard:
    """What a probe reported; `wait` waits for the next report."""

    def __init__(self) -> None:
        self.recalls: list[tuple[str, bool, float]] = []
        self._arrived = threading.Semaphore(0)

    def __call__(self, collection: str, filtered: bool, recall: float) -> None:
        self.recalls.append((collection, filtered, recall))
        self._arrived.release()

    def wait(self) -> tuple[str, bool, float]:
        assert self._arrived.acquire(timeout=20)
        return self.recalls[-1]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> VectorIndex:
    """Clusters of which only the nearest is searched: much is missed."""
    folder = tmp_path_factory.mktemp("index")
    made = build_index(VECTORS, "cosine", Plan.of(COUNT, DIM, IndexOptions("ivf")), folder)
    return read_index(folder, made.index.factory, {"probes": 1, "candidates": 32})


@pytest.mark.parametrize("filtered", [False, True])
def test_a_probe_reports_the_recall_of_the_index(index: VectorIndex, filtered: bool) -> None:
    allowed = Allowed(np.arange(COUNT) % 2 == 0) if filtered else None
    exact = QUERIES @ VECTORS.T
    if filtered:
        exact[:, 1::2] = -np.inf
    heard = Heard()
    probe = RecallProbe(heard, every=0)
    expected = []
    for query, scores in zip(QUERIES, exact, strict=True):
        probe.offer("shop", index, query[None], allowed, filtered=filtered)
        best = set(np.argsort(-scores)[:10].tolist())
        found = index.search(query[None], 10, allowed).positions[0].tolist()
        expected.append(len(best & set(found)) / 10)
        collection, was_filtered, recall = heard.wait()
        assert (collection, was_filtered) == ("shop", filtered) and recall == pytest.approx(expected[-1])
    assert filtered or np.mean(expected) < 0.9, "an index that misses nothing proves nothing"


def test_one_probe_a_minute_of_each_kind_and_none_of_exact_search(index: VectorIndex) -> None:
    heard = Heard()
    probe = RecallProbe(heard)
    for collection in ("a", "a", "b"):
        probe.offer(collection, index, QUERIES[:1], None, filtered=False)
    probe.offer("a", index, QUERIES[:1], Allowed(np.ones(COUNT, dtype=bool)), filtered=True)
    probe.offer("c", FaissIndex.exact(VECTORS, "cosine"), QUERIES[:1], None, filtered=False)
    for _ in range(3):
        heard.wait()
    probe.close()
    probe.offer("d", index, QUERIES[:1], None, filtered=False)  # by a search that is still running
    assert sorted(row[:2] for row in heard.recalls) == [("a", False), ("a", True), ("b", False)]


def test_an_index_that_fails_is_logged_and_the_next_probe_goes_on(
    index: VectorIndex, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()
    probe = RecallProbe(heard, every=0)
    probe.offer("shop", index, QUERIES[:1, :5], None, filtered=False)  # of another dimension
    probe.offer("shop", index, QUERIES[:1], None, filtered=False)
    heard.wait()
    assert "could not measure the recall of a search in shop" in caplog.text
