"""Images and source rows that could not be indexed, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import select

from indexer.catalogue.collections import find_collection
from indexer.catalogue.engine import Database
from indexer.catalogue.records import RejectRecord
from indexer.catalogue.schema import images, items, rejects
from indexer.catalogue.values import now


@dataclass
class Rejects:
    database: Database

    def replace(self, collection_id: int, source: str, found: Sequence[RejectRecord]) -> None:
        """Store the rejected rows of a source in place of those of its previous reading."""
        with self.database.write() as connection:
            same_source = (rejects.c.collection_id == collection_id) & (rejects.c.source == source)
            connection.execute(sa.delete(rejects).where(same_source))
            values = [
                {"collection_id": collection_id, "source": source, "place": record.place, "item_id": record.item_id,
                 "image": record.image, "reason": record.reason, "at": now()}
                for record in found
            ]  # fmt: skip
            if values:
                connection.execute(sa.insert(rejects), values)

    def all(self, collection: str) -> list[RejectRecord]:
        """Rejected images, then rejected source rows."""
        collection_id = find_collection(self.database, collection)
        of_images = (
            select(items.c.item_id, images.c.uri, images.c.uri, images.c.reason)
            .select_from(images.join(items))
            .where(items.c.collection_id == collection_id, images.c.status == "rejected")
            .order_by(images.c.id)
        )
        of_rows = (
            select(rejects.c.item_id, rejects.c.image, rejects.c.place, rejects.c.reason)
            .where(rejects.c.collection_id == collection_id)
            .order_by(rejects.c.id)
        )
        with self.database.read() as connection:
            rows = [*connection.execute(of_images), *connection.execute(of_rows)]
        return [RejectRecord(collection, *row) for row in rows]
