"""Vectors of searchable images by one encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import Row, Select, func, select

from indexer.catalogue.changes import last_change
from indexer.catalogue.engine import Database
from indexer.catalogue.records import StoredPhoto, StoredVectors
from indexer.catalogue.schema import images, items, vectors
from indexer.catalogue.values import chunks, from_blob, from_blobs, utc

STREAMED = 10_000  # rows read at a time


@dataclass(frozen=True)
class Snapshot:
    """The vectors of a collection at one moment.

    Args:
        watermark: number of the collection's last change.
        count: number of vectors.
        parts: all of them in order of image_id, read as they are asked for.
    """

    watermark: int
    count: int
    parts: Iterator[StoredVectors]


@dataclass
class Vectors:
    database: Database

    def of_items(self, encoder_id: str, dim: int, pks: Iterable[int]) -> StoredVectors:
        """The vectors of these items' searchable images."""
        query = _select_vectors(encoder_id)
        with self.database.read() as connection:
            rows = [row for chunk in chunks(pks) for row in connection.execute(query.where(items.c.id.in_(chunk)))]
        return _stored_vectors(rows, dim)

    @contextmanager
    def snapshot(self, collection_id: int, encoder_id: str, dim: int) -> Iterator[Snapshot]:
        """A consistent snapshot of a collection's vectors, which can be read within the block."""
        of_collection = items.c.collection_id == collection_id
        query = _select_vectors(encoder_id).where(of_collection).order_by(images.c.id)
        count = _select_vectors(encoder_id).where(of_collection).with_only_columns(func.count())
        with self.database.read() as connection:
            rows = connection.execution_options(yield_per=STREAMED).execute(query)
            parts = (_stored_vectors(part, dim) for part in rows.partitions(STREAMED))
            yield Snapshot(last_change(connection, collection_id), int(connection.scalar(count) or 0), parts)

    def keys(self, collection_id: int, encoder_id: str) -> NDArray[np.int64]:
        """image_id, item key and the first 60 bits of the content's SHA-256 of each vector, `(n, 3)`."""
        query = _select_vectors(encoder_id).with_only_columns(images.c.id, items.c.id, images.c.sha256)
        query = query.where(items.c.collection_id == collection_id).order_by(images.c.id)
        found = [np.empty((0, 3), np.int64)]
        with self.database.read() as connection:
            for part in connection.execution_options(yield_per=STREAMED).execute(query).partitions():
                found.append(np.array([(image_id, pk, int(sha256[:15], 16)) for image_id, pk, sha256 in part]))
        return np.concatenate(found)

    def photos(self, collection_id: int, encoder_id: str) -> list[StoredPhoto]:
        """Every searchable photo with its vector, in order of image_id."""
        query = (
            select(items.c.id, items.c.item_id, items.c.created_at, images.c.uri, images.c.sha256, vectors.c.vector)
            .select_from(images.join(items).join(vectors, is_current_vector(encoder_id)))
            .where(items.c.collection_id == collection_id, images.c.status == "ok")
            .order_by(images.c.id)
        )
        with self.database.read() as connection:
            rows = connection.execution_options(yield_per=10_000).execute(query)
            return [
                StoredPhoto(pk, item_id, utc(at), uri, sha256, from_blob(vector))
                for pk, item_id, at, uri, sha256, vector in rows
            ]

    def missing(self, collection_id: int, encoder_id: str) -> list[tuple[str, str]]:
        """(item_id, uri) of the usable images that still lack a vector by this encoder."""
        query = select_missing(collection_id, encoder_id, items.c.item_id, images.c.uri)
        with self.database.read() as connection:
            return [(item_id, uri) for item_id, uri in connection.execute(query.order_by(images.c.id))]


def is_current_vector(encoder_id: str) -> sa.ColumnElement[bool]:
    """Joins images to the vector of their present content by one encoder."""
    return (
        (vectors.c.image_id == images.c.id)
        & (vectors.c.sha256 == images.c.sha256)
        & (vectors.c.encoder_id == encoder_id)
    )


def select_missing(collection_id: int, encoder_id: str, *columns: sa.Column[Any]) -> Select[Any]:
    """Columns of the usable images that still lack a vector by this encoder."""
    return (
        select(*columns)
        .select_from(images.join(items).outerjoin(vectors, is_current_vector(encoder_id)))
        .where(items.c.collection_id == collection_id, images.c.status == "ok", vectors.c.image_id.is_(None))
    )


def _select_vectors(encoder_id: str) -> Select[int, int, str, bytes]:
    return (
        select(images.c.id, items.c.id, images.c.sha256, vectors.c.vector)
        .select_from(images.join(items).join(vectors, is_current_vector(encoder_id)))
        .where(images.c.status == "ok")
    )


def _stored_vectors(rows: Iterable[Row[int, int, str, bytes]], dim: int) -> StoredVectors:
    keys, contents, blobs = [], [], []
    for image_id, pk, sha256, blob in rows:
        keys.append((image_id, pk))
        contents.append(sha256)
        blobs.append(blob)
    return StoredVectors(np.array(keys, dtype=np.int64).reshape(-1, 2), contents, from_blobs(blobs, dim))
