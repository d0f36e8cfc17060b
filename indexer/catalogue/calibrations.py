"""Calibrations: one JSON document for each collection and encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select

from indexer.catalogue.collections import lock_collection
from indexer.catalogue.engine import Database
from indexer.catalogue.schema import calibrations
from indexer.catalogue.values import now


@dataclass
class Calibrations:
    database: Database

    def put(self, collection_id: int, encoder_id: str, content: Mapping[str, Any]) -> None:
        """Store a calibration in place of the previous one."""
        values = {"content": dict(content), "created_at": now()}
        with self.database.write() as connection:
            lock_collection(connection, collection_id)
            updated = connection.execute(sa.update(calibrations).where(_same(collection_id, encoder_id)).values(values))
            if updated.rowcount == 0:
                keys = {"collection_id": collection_id, "encoder_id": encoder_id}
                connection.execute(sa.insert(calibrations).values(**keys, **values))

    def get(self, collection_id: int, encoder_id: str) -> dict[str, Any] | None:
        with self.database.read() as connection:
            content = connection.scalar(select(calibrations.c.content).where(_same(collection_id, encoder_id)))
        return None if content is None else dict(content)


def _same(collection_id: int, encoder_id: str) -> sa.ColumnElement[bool]:
    return (calibrations.c.collection_id == collection_id) & (calibrations.c.encoder_id == encoder_id)
