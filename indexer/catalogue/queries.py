"""A bounded sample of recent query vectors, for each collection and encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy import select

from indexer.catalogue.engine import Database
from indexer.catalogue.records import RecentQuery
from indexer.catalogue.schema import recent_queries
from indexer.catalogue.values import from_blob, to_blob, utc
from indexer.errors import IndexerError

Floats = NDArray[np.float32]


@dataclass
class RecentQueries:
    database: Database

    def add(
        self, collection_id: int, encoder_id: str, queries: Sequence[tuple[datetime, NDArray[np.float32]]], *, keep: int
    ) -> None:
        """Store (time, vector) of queries, oldest first, and delete all but the newest `keep`.

        Raises:
            IndexerError: the database refuses them, for example because the encoder is unknown.
        """
        values = [
            {"collection_id": collection_id, "encoder_id": encoder_id, "vector": to_blob(vector), "at": at}
            for at, vector in queries
        ]
        same = _same(collection_id, encoder_id)
        newest = select(recent_queries.c.id).where(same).order_by(recent_queries.c.id.desc())
        try:
            with self.database.write() as connection:
                connection.execute(sa.insert(recent_queries), values)
                oldest = connection.scalar(newest.offset(keep - 1).limit(1))
                if oldest is not None:
                    connection.execute(sa.delete(recent_queries).where(same, recent_queries.c.id < oldest))
        except sa.exc.SQLAlchemyError as exc:
            raise IndexerError(f"recent queries could not be stored ({str(exc).splitlines()[0]})") from exc

    def all(self, collection_id: int, encoder_id: str) -> list[RecentQuery]:
        """The stored queries by one encoder, newest first."""
        query = select(recent_queries.c.at, recent_queries.c.vector).where(_same(collection_id, encoder_id))
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(recent_queries.c.id.desc()))
            return [RecentQuery(utc(at), from_blob(vector)) for at, vector in rows]


def distinct_vectors(queries: Iterable[RecentQuery]) -> list[Floats]:
    """The different vectors in their first order: a photo that is searched twice counts once."""
    return list({query.vector.tobytes(): query.vector for query in queries}.values())


def _same(collection_id: int, encoder_id: str) -> sa.ColumnElement[bool]:
    return (recent_queries.c.collection_id == collection_id) & (recent_queries.c.encoder_id == encoder_id)
