"""Items that a person deleted. Sources do not add them again; see docs/decisions/0021-deleted-items-stay-deleted.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection, select

from indexer.catalogue.collections import lock_collection
from indexer.catalogue.engine import Database
from indexer.catalogue.records import ImageWrite
from indexer.catalogue.schema import tombstones
from indexer.catalogue.values import chunks, now


@dataclass
class Tombstones:
    database: Database

    def of(self, collection_id: int) -> set[str]:
        """The ids of a collection's deleted items."""
        query = select(tombstones.c.item_id).where(tombstones.c.collection_id == collection_id)
        with self.database.read() as connection:
            return set(connection.scalars(query))

    def remove(self, collection_id: int, item_ids: Iterable[str]) -> None:
        """Let sources add these items again."""
        with self.database.write() as connection:
            lock_collection(connection, collection_id)
            remove_tombstones(connection, collection_id, item_ids)


def add_tombstones(connection: Connection, collection_id: int, item_ids: Iterable[str]) -> None:
    """Record that a person deleted these items, which exist, in place of any earlier tombstones."""
    ids = list(item_ids)
    remove_tombstones(connection, collection_id, ids)
    at = now()
    rows = [{"collection_id": collection_id, "item_id": item_id, "deleted_at": at} for item_id in ids]
    connection.execute(sa.insert(tombstones), rows)


def remove_tombstones(connection: Connection, collection_id: int, item_ids: Iterable[str]) -> None:
    same = tombstones.c.collection_id == collection_id
    for chunk in chunks(item_ids):
        connection.execute(sa.delete(tombstones).where(same, tombstones.c.item_id.in_(chunk)))


def without_deleted(connection: Connection, collection_id: int, writes: Sequence[ImageWrite]) -> list[ImageWrite]:
    """The writes of items that no person deleted, including in the time since the batch was read."""
    query = select(tombstones.c.item_id).where(tombstones.c.collection_id == collection_id)
    deleted: set[str] = set()
    for chunk in chunks({write.item_id: None for write in writes}):
        deleted.update(connection.scalars(query.where(tombstones.c.item_id.in_(chunk))))
    return [write for write in writes if write.item_id not in deleted]
