"""Generations: immutable index directories, built aside, verified, then activated by one transaction.

<number>/index.faiss      the vectors, by position
<number>/ids.npy          (count, 2) int64: image_id and item key of each position
<number>/neighbours.npy   (count, k): position and score of the nearest others of each; up to MAX_LISTED vectors
<number>/manifest.json    encoder, dim, metric, factory, count, recall@10 against exact search, checksums
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from indexer.errors import CorruptError, NotFoundError
from indexer.home import Home
from indexer.records import EncoderRecord, GenerationRecord
from indexer.rerank import K1, NeighbourLists
from indexer.vectors import Floats, Ints, VectorIndex
from training.files import fsync_directory, write_durably
from training.reference import Metric, first_line

KEEP = 3  # directories per collection: the active one, and two to roll back to
RECALL_QUERIES = 64
FILES = ("index.faiss", "ids.npy")
NEIGHBOURS = "neighbours.npy"  # generations of before, and large ones, have none
MAX_LISTED = 100_000  # vectors: the exact lists of more take longer than embedding them
PAIR = np.dtype([("position", "<i4"), ("score", "<f4")])


@dataclass(frozen=True)
class Manifest:
    """What a generation directory says of itself; `sha256` covers the other files."""

    collection: str
    number: int
    encoder_id: str
    dim: int
    metric: Metric
    count: int
    factory: str
    search_parameters: dict[str, float]
    recall_at_10: float
    watermark: int
    sha256: dict[str, str]

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read `manifest.json`; `CorruptError` where it is missing or not whole."""
        try:
            return cls(**json.loads((directory / "manifest.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as exc:
            raise CorruptError(f"{directory / 'manifest.json'}: cannot be read ({first_line(exc)})") from exc


def list_generations(home: Home, collection: str | None = None) -> list[GenerationRecord]:
    return home.catalogue.generations(collection)


def build_generation(
    home: Home, collection: str, encoder: EncoderRecord, *, activated: bool = True
) -> GenerationRecord:
    """Build and verify a generation from the catalogue's vectors by one encoder, and put it into service.

    The caller holds the collection's lock. What a killed build left behind is removed first.

    Args:
        activated: whether to put it into service; `indexer.promotion.put_into_service` does so later.
    """
    collection_id = home.catalogue.collection_id(collection)
    number = home.catalogue.next_generation_number(collection_id)
    target = home.generation_directory(collection, number)
    aside = target.with_name(f".building-{uuid.uuid4().hex}")
    _remove_unrecorded(home, collection, number)
    aside.mkdir(parents=True)
    try:
        manifest = _write_generation(home, collection, collection_id, number, encoder, aside)
        verify_directory(aside)
        aside.rename(target)
        fsync_directory(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    record = GenerationRecord(
        collection=collection,
        number=number,
        encoder_id=encoder.encoder_id,
        status="retired",
        count=manifest.count,
        dim=manifest.dim,
        metric=manifest.metric,
        factory=manifest.factory,
        recall_at_10=manifest.recall_at_10,
        watermark=manifest.watermark,
        manifest_sha256=_sha256(target / "manifest.json"),
        created_at=datetime.now(UTC),
        activated_at=None,
    )
    home.catalogue.add_generation(collection_id, record)
    if activated:
        home.catalogue.activate_generation(collection_id, number)
        remove_old(home, collection)
    return record


def verify(home: Home, collection: str, number: int) -> list[str]:
    """What is wrong with a generation: its files, its encoder, its agreement with the catalogue. Empty when nothing."""
    record = find_generation(home, collection, number)
    directory = home.generation_directory(collection, number)
    try:
        Manifest.read(directory)
        if _sha256(directory / "manifest.json") != record.manifest_sha256:
            return [f"{directory / 'manifest.json'}: is not the file that the catalogue recorded"]
        manifest = verify_directory(directory)
        described = home.encoder(manifest.encoder_id)
    except ValueError as exc:
        return [str(exc)]
    problems = []
    for name in ("encoder_id", "dim", "metric", "count", "watermark"):
        if getattr(manifest, name) != getattr(record, name):
            problems.append(f"{name}: manifest {getattr(manifest, name)}, catalogue {getattr(record, name)}")
    if (described.dim, described.metric) != (manifest.dim, manifest.metric):
        problems.append(f"encoder gives {described.metric} of {described.dim}, index holds {manifest.dim}")
    return problems


def verify_directory(directory: Path) -> Manifest:
    """Check a generation directory against its own manifest.

    Raises:
        CorruptError: a file is missing, changed, or of another count or dimension than the manifest says.
    """
    from indexer.vectors.faiss import FaissIndex

    manifest = Manifest.read(directory)
    for name in sorted({*FILES, *manifest.sha256}):
        try:
            found = _sha256(directory / name)
        except OSError as exc:
            raise CorruptError(f"{directory / name}: cannot be read ({exc.strerror})") from exc
        if found != manifest.sha256.get(name):
            raise CorruptError(f"{directory / name}: its checksum is not the manifest's; it was changed or damaged")
    ids = load_ids(directory)
    index = FaissIndex.read(directory / "index.faiss", manifest.factory)
    if not index.count == len(ids) == manifest.count or index.dim != manifest.dim:
        raise CorruptError(
            f"{directory}: index has {index.count} vectors of {index.dim}, ids {len(ids)}, "
            f"manifest says {manifest.count} of {manifest.dim}"
        )
    lists = load_neighbours(directory, manifest)
    if lists is not None and len(lists.positions) != manifest.count:
        raise CorruptError(f"{directory / NEIGHBOURS}: lists {len(lists.positions)} vectors, not {manifest.count}")
    return manifest


def load_neighbours(directory: Path, manifest: Manifest) -> NeighbourLists | None:
    """The nearest others of each vector, memory-mapped; None where the generation holds no lists."""
    if NEIGHBOURS not in manifest.sha256:
        return None
    try:
        pairs = np.load(directory / NEIGHBOURS, mmap_mode="r", allow_pickle=False)
        return NeighbourLists(pairs["position"], pairs["score"])
    except (OSError, ValueError, IndexError) as exc:
        raise CorruptError(f"{directory / NEIGHBOURS}: cannot be read ({first_line(exc)})") from exc


def load_ids(directory: Path) -> Ints:
    """`(count, 2)` int64: image_id and item key by position, memory-mapped."""
    try:
        ids: Ints = np.load(directory / "ids.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as exc:
        raise CorruptError(f"{directory / 'ids.npy'}: cannot be read ({first_line(exc)})") from exc
    return ids


def _write_generation(
    home: Home, collection: str, collection_id: int, number: int, encoder: EncoderRecord, directory: Path
) -> Manifest:
    from indexer.vectors.faiss import FaissIndex

    with home.catalogue.vector_snapshot(collection_id, encoder.encoder_id) as (watermark, rows):
        ids, blobs = [], []
        for image_id, pk, _, vector in rows:
            ids.append((image_id, pk))
            blobs.append(vector)
    vectors = np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), encoder.dim).astype(np.float32)
    metric: Metric = "cosine" if encoder.metric == "cosine" else "l2"
    index = FaissIndex.build(vectors, metric)
    index.write(directory / "index.faiss")
    np.save(directory / "ids.npy", np.asarray(ids, dtype=np.int64).reshape(-1, 2))
    names = [*FILES, *_write_neighbours(index, vectors, directory)]
    manifest = Manifest(
        collection=collection,
        number=number,
        encoder_id=encoder.encoder_id,
        dim=encoder.dim,
        metric=metric,
        count=len(ids),
        factory=index.factory,
        search_parameters={},
        recall_at_10=recall_against_exact(index, vectors, metric),
        watermark=watermark,
        sha256={name: _sha256(directory / name) for name in names},
    )
    for name in names:
        _fsync(directory / name)
    write_durably(directory / "manifest.json", _json(asdict(manifest)))
    fsync_directory(directory)
    return manifest


def _write_neighbours(index: VectorIndex, vectors: Floats, directory: Path) -> list[str]:
    """Write the lists that re-ranking needs; names of the files, none where there are too many vectors or too few."""
    from indexer.vectors.neighbours import nearest_others

    if not 2 <= len(vectors) <= MAX_LISTED:
        return []
    lists = nearest_others(index, vectors, K1)
    pairs = np.empty(lists.positions.shape, PAIR)
    pairs["position"], pairs["score"] = lists
    np.save(directory / NEIGHBOURS, pairs)
    return [NEIGHBOURS]


def recall_against_exact(index: Any, vectors: Floats, metric: Metric, k: int = 10) -> float:
    """Mean share of the true `k` nearest that the index returns, ties allowed, over evenly spread stored vectors."""
    if not len(vectors):
        return 1.0
    k = min(k, len(vectors))
    step = max(1, len(vectors) // RECALL_QUERIES)
    queries = vectors[::step][:RECALL_QUERIES]
    exact = exact_scores(queries, vectors, metric)
    kth_best = np.partition(exact, -k, axis=1)[:, -k]
    found = index.search(queries, k)
    scores = np.take_along_axis(exact, found.positions, axis=1)
    # A neighbour as near as the k-th nearest is right, whichever of the equals it is; rounding blurs "as near".
    return float((scores >= kth_best[:, None] - 1e-4).mean())


def exact_scores(queries: Floats, vectors: Floats, metric: Metric) -> Floats:
    """`(nq, n)` scores by brute force, as `FaissIndex.search` gives them."""
    products: Floats = queries @ vectors.T
    if metric == "cosine":
        return products
    squared = (queries**2).sum(1)[:, None] - 2 * products + (vectors**2).sum(1)[None]
    distances: Floats = np.sqrt(np.maximum(squared, 0.0))
    return -distances


def find_generation(home: Home, collection: str, number: int) -> GenerationRecord:
    for record in home.catalogue.generations(collection):
        if record.number == number:
            return record
    raise NotFoundError(f"collection {collection!r} has no generation {number}; {kept_generations(home, collection)}")


def kept_generations(home: Home, collection: str) -> str:
    kept = [str(record.number) for record in home.catalogue.generations(collection) if record.status != "removed"]
    return f"there is {', '.join(kept)}" if kept else "there is none"


def _remove_unrecorded(home: Home, collection: str, next_number: int) -> None:
    """Directories that a killed build left: aside, or renamed but never recorded."""
    parent = home.generations_directory(collection)
    if parent.is_dir():
        for left in parent.glob(".building-*"):
            shutil.rmtree(left, ignore_errors=True)
    shutil.rmtree(home.generation_directory(collection, next_number), ignore_errors=True)


def remove_old(home: Home, collection: str) -> None:
    """Remove the directories of all but the newest few generations; never that of the active one."""
    collection_id = home.catalogue.collection_id(collection)
    records = [record for record in home.catalogue.generations(collection) if record.status != "removed"]
    for record in records[:-KEEP]:
        if record.status != "active":
            _remove(home, collection_id, record)


def remove_unused(home: Home, collection: str, encoder_id: str) -> None:
    """Remove the generations by an encoder that never were in service; they would take the place of those that were."""
    collection_id = home.catalogue.collection_id(collection)
    for record in home.catalogue.generations(collection):
        if record.encoder_id == encoder_id and record.activated_at is None and record.status != "removed":
            _remove(home, collection_id, record)


def _remove(home: Home, collection_id: int, record: GenerationRecord) -> None:
    home.catalogue.mark_generation_removed(collection_id, record.number)
    shutil.rmtree(home.generation_directory(record.collection, record.number), ignore_errors=True)


def _fsync(path: Path) -> None:
    import os

    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
