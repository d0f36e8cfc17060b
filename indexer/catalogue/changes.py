"""The change log: which items changed, in commit order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from indexer.catalogue.bulk import insert_rows
from indexer.catalogue.engine import Database
from indexer.catalogue.schema import changes
from indexer.catalogue.values import now

SEARCHABLE_KINDS = ("added", "updated", "deleted")  # kinds of change that a new generation would show


@dataclass
class Changes:
    database: Database

    def live_items(self, collection_id: int, after: int) -> set[int]:
        """Keys of the items that live writes changed after a change id; they may be deleted by now."""
        query = select(changes.c.item_pk).where(
            changes.c.collection_id == collection_id, changes.c.id > after, changes.c.live
        )
        with self.database.read() as connection:
            return set(connection.scalars(query))

    def changed_items(self, collection_id: int, after: int, *, at_most: int) -> set[int] | None:
        """Keys of the items that changed after a change id, in any way; None if there are more changes."""
        query = select(changes.c.item_pk).where(changes.c.collection_id == collection_id, changes.c.id > after)
        with self.database.read() as connection:
            found = connection.scalars(query.limit(at_most + 1)).all()
        return None if len(found) > at_most else {pk for pk in found if pk is not None}

    def has_unindexed(self, collection_id: int, watermark: int) -> bool:
        """Whether a new generation would differ from one with this watermark."""
        query = select(changes.c.id).where(
            changes.c.collection_id == collection_id,
            changes.c.id > watermark,
            changes.c.kind.in_(SEARCHABLE_KINDS),
        )
        with self.database.read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def items_indexed_since(self, collection_id: int, watermark: int) -> int:
        """Number of items that sources added after a watermark; a generation of that watermark lacks them."""
        query = select(func.count(changes.c.item_pk.distinct())).where(
            changes.c.collection_id == collection_id,
            changes.c.id > watermark,
            changes.c.kind == "added",
            ~changes.c.live,
        )
        with self.database.read() as connection:
            return int(connection.scalar(query) or 0)


def last_change(connection: Connection, collection_id: int) -> int:
    return int(connection.scalar(select(func.max(changes.c.id)).where(changes.c.collection_id == collection_id)) or 0)


def log_changes(
    connection: Connection, collection_id: int, logged: Sequence[tuple[str, int, str]], *, live: bool
) -> None:
    """Append (kind, item key, item_id) entries."""
    at = now()
    values = [
        {"collection_id": collection_id, "at": at, "kind": kind, "item_pk": pk, "item_id": item_id, "live": live}
        for kind, pk, item_id in logged
    ]
    insert_rows(connection, changes, values)
