"""Building a generation: written aside from the catalogue's vectors, verified, then recorded."""

from __future__ import annotations

import io
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexer.catalogue.disk import writing
from indexer.catalogue.home import Home
from indexer.catalogue.records import EncoderRecord, GenerationRecord
from indexer.generations.manifest import (
    IDS,
    NEIGHBOURS,
    TYPICALITY,
    Manifest,
    check_counts,
    check_files,
    load_typicality,
)
from indexer.generations.store import remove_old
from indexer.typicality.fit import fit_typicality
from indexer.vectors import Floats, IndexOptions, Ints, VectorIndex
from indexer.vectors.engines import build_index, exact_index, plan_index
from indexer.vectors.rerank import K1
from training.files import fsync_directory, sha256_of
from training.reference import Metric

if TYPE_CHECKING:
    from indexer.catalogue.vector_table import NewVectorTable
    from indexer.vectors.building import Plan

RAW = "vectors.building"  # vectors of 32 bits, while the index is built
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
    metric: Metric = "cosine" if encoder.metric == "cosine" else "l2"
    _remove_unrecorded(home, collection, number)
    with _new_table(home, collection_id, number, metric) as table:
        try:
            with writing(target):
                aside.mkdir(parents=True)
                manifest = _write_generation(home, collection, collection_id, number, encoder, metric, aside, table)
                check_files(aside, Manifest.read(aside))  # as it is on the disk
                check_counts(aside, manifest, table)
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
        home.catalogue.generations.add(collection_id, record, None if table is None else table.connection)
    if activated:
        home.catalogue.generations.activate(collection_id, number)
        remove_old(home, collection)
    return record


@contextmanager
def _new_table(home: Home, collection_id: int, number: int, metric: Metric) -> Iterator[NewVectorTable | None]:
    """A table for the vectors, if that is where they go, within the transaction that must record the generation."""
    if home.vectors != "pgvector":
        yield None
        return
    with home.catalogue.vector_tables.new(collection_id, number, metric) as table:
        yield table


def _write_generation(
    home: Home,
    collection: str,
    collection_id: int,
    number: int,
    encoder: EncoderRecord,
    metric: Metric,
    directory: Path,
    table: NewVectorTable | None,
) -> Manifest:
    options = home.catalogue.collections.index_options(collection_id)
    plan, watermark, ids, vectors = _write_vectors(home, collection_id, encoder, options, directory)
    _save(directory / IDS, ids)
    if table is not None and len(vectors) <= MAX_LISTED:
        # Before there is a table: each search of it is a round trip, and its transaction should be short.
        names = _write_derived(exact_index(vectors, metric), ids, vectors, metric, directory)
        built = build_index(vectors, metric, plan, directory, table)
    else:
        built = build_index(vectors, metric, plan, directory, table)
        names = _write_derived(built.index, ids, vectors, metric, directory)
    names += [*built.files, IDS]
    del vectors
    (directory / RAW).unlink(missing_ok=True)
    manifest = Manifest(
        collection=collection,
        number=number,
        encoder_id=encoder.encoder_id,
        dim=encoder.dim,
        metric=metric,
        count=len(ids),
        factory=built.index.factory,
        recall_at_10=built.recall,
        watermark=watermark,
        sha256={name: sha256_of(directory / name) for name in names},
        search_parameters=dict(built.index.parameters),
        options=asdict(options),
    )
    for name in names:
        _fsync(directory / name)
    manifest.write(directory)
    fsync_directory(directory)
    return manifest


def _write_vectors(
    home: Home, collection_id: int, encoder: EncoderRecord, options: IndexOptions, directory: Path
) -> tuple[Plan, int, Ints, Floats]:
    """Write the catalogue's vectors to a temporary file in the order of the index; a part at a time is in memory.

    Returns:
        The plan of the index, the watermark, the ids by position, and the vectors, mapped from the file.
    """
    with home.catalogue.vectors.snapshot(collection_id, encoder.encoder_id, encoder.dim) as snapshot:
        plan = plan_index(snapshot.count, encoder.dim, options, home.vectors)
        positions = plan.order(snapshot.count)
        ids = np.empty((snapshot.count, 2), np.int64)
        vectors: Floats = np.empty((0, encoder.dim), np.float32)
        if snapshot.count:  # an empty file cannot be mapped
            vectors = np.memmap(directory / RAW, np.float32, "w+", shape=(snapshot.count, encoder.dim))
        start = 0
        for part in snapshot.parts:
            places = positions[start : start + len(part.ids)]
            ids[places], vectors[places] = part.ids, part.vectors
            start += len(part.ids)
    return plan, snapshot.watermark, ids, vectors


def _write_derived(index: VectorIndex, ids: Ints, vectors: Floats, metric: Metric, directory: Path) -> list[str]:
    """Write neighbour lists and typicality, computed with an index of all vectors; returns the file names."""
    names = _write_neighbours(index, vectors, directory)
    if (typicality := fit_typicality(index, ids, vectors, metric)) is not None:
        (directory / TYPICALITY).write_bytes(typicality.to_bytes())
        names.append(TYPICALITY)
    return names


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
