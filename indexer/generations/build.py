"""Building a generation: written aside from the catalogue's vectors, verified, then recorded."""

from __future__ import annotations

import io
import os
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.catalogue.disk import writing
from indexer.catalogue.home import Home
from indexer.catalogue.records import EncoderRecord, GenerationRecord
from indexer.generations.manifest import (
    FILES,
    NEIGHBOURS,
    TYPICALITY,
    Manifest,
    check_counts,
    check_files,
    load_typicality,
)
from indexer.generations.store import remove_old
from indexer.typicality.fit import fit_typicality
from indexer.vectors import Floats, VectorIndex
from indexer.vectors.engines import build_index
from indexer.vectors.exact import recall_against_exact
from indexer.vectors.rerank import K1
from training.files import fsync_directory, sha256_of
from training.reference import Metric

MAX_LISTED = 100_000  # vectors: exact neighbour lists of more would take longer than embedding them
PAIR = np.dtype([("position", "<i4"), ("score", "<f4")])


def build_generation(
    home: Home, collection: str, encoder: EncoderRecord, *, activated: bool = True
) -> GenerationRecord:
    """Build a generation from the catalogue's vectors of one encoder, verify it, and activate it.

    The caller must hold the collection's lock. Directories left by killed builds are removed first.

    Args:
        activated: False to leave activation to `indexer.ingest.promotion.put_into_service`.

    Raises:
        DiskFullError, ReadOnlyError: the active generation stays as it is.
    """
    collection_id = home.catalogue.collection_id(collection)
    number = home.catalogue.generations.next_number(collection_id)
    target = home.generation_directory(collection, number)
    aside = target.with_name(f".building-{uuid.uuid4().hex}")
    _remove_unrecorded(home, collection, number)
    try:
        with writing(target):
            aside.mkdir(parents=True)
            manifest = _write_generation(home, collection, collection_id, number, encoder, aside)
            check_files(aside, Manifest.read(aside))  # as it is on the disk
            check_counts(aside, manifest)
            load_typicality(aside, manifest)
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
        manifest_sha256=sha256_of(target / "manifest.json"),
        created_at=datetime.now(UTC),
        activated_at=None,
    )
    home.catalogue.generations.add(collection_id, record)
    if activated:
        home.catalogue.generations.activate(collection_id, number)
        remove_old(home, collection)
    return record


def _write_generation(
    home: Home, collection: str, collection_id: int, number: int, encoder: EncoderRecord, directory: Path
) -> Manifest:
    watermark, stored = home.catalogue.vectors.snapshot(collection_id, encoder.encoder_id, encoder.dim)
    vectors = stored.vectors
    metric: Metric = "cosine" if encoder.metric == "cosine" else "l2"
    index = build_index(vectors, metric)
    index.write(directory / "index.faiss")
    _save(directory / "ids.npy", stored.ids)
    names = [*FILES, *_write_neighbours(index, vectors, directory)]
    if (typicality := fit_typicality(index, stored.ids, vectors, metric)) is not None:
        (directory / TYPICALITY).write_bytes(typicality.to_bytes())
        names.append(TYPICALITY)
    manifest = Manifest(
        collection=collection,
        number=number,
        encoder_id=encoder.encoder_id,
        dim=encoder.dim,
        metric=metric,
        count=len(vectors),
        factory=index.factory,
        recall_at_10=recall_against_exact(index, vectors, metric),
        watermark=watermark,
        sha256={name: sha256_of(directory / name) for name in names},
    )
    for name in names:
        _fsync(directory / name)
    manifest.write(directory)
    fsync_directory(directory)
    return manifest


def _write_neighbours(index: VectorIndex, vectors: Floats, directory: Path) -> list[str]:
    """Write the neighbour lists for re-ranking; returns the file names, none for too many or too few vectors."""
    from indexer.vectors.neighbours import nearest_others

    if not 2 <= len(vectors) <= MAX_LISTED:
        return []
    lists = nearest_others(index, vectors, K1)
    pairs = np.empty(lists.positions.shape, PAIR)
    pairs["position"], pairs["score"] = lists
    _save(directory / NEIGHBOURS, pairs)
    return [NEIGHBOURS]


def _remove_unrecorded(home: Home, collection: str, next_number: int) -> None:
    """Remove directories of killed builds: unfinished ones, and finished ones that were never recorded."""
    parent = home.generations_directory(collection)
    if parent.is_dir():
        for left in parent.glob(".building-*"):
            shutil.rmtree(left, ignore_errors=True)
    shutil.rmtree(home.generation_directory(collection, next_number), ignore_errors=True)


def _save(path: Path, array: NDArray[Any]) -> None:
    """Write an array by way of memory: `np.save` into a file on a full disk raises an error without a reason."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    path.write_bytes(buffer.getbuffer())


def _fsync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
