"""Items: reads, and live writes of single ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Select, bindparam, select

from indexer.catalogue.changes import log_changes
from indexer.catalogue.collections import find_collection, lock_collection
from indexer.catalogue.engine import Database
from indexer.catalogue.generations import active_number
from indexer.catalogue.images import select_image_records
from indexer.catalogue.records import ImageRecord, ImageWrite, ItemRecord, ItemSummary
from indexer.catalogue.schema import images, items
from indexer.catalogue.tombstones import add_tombstone, remove_tombstones
from indexer.catalogue.values import chunks
from indexer.catalogue.writes import upsert_images, upsert_items, write_vectors
from indexer.errors import NotFoundError


@dataclass
class Items:
    database: Database

    def get(self, collection: str, item_id: str) -> ItemRecord:
        """An item with its images; `NotFoundError` if it does not exist."""
        collection_id = find_collection(self.database, collection)
        with self.database.read() as connection:
            row = connection.execute(
                select(items.c.id, items.c.title, items.c.attributes).where(
                    items.c.collection_id == collection_id, items.c.item_id == item_id
                )
            ).first()
            if row is None:
                raise NotFoundError(f"no item {item_id!r} in collection {collection!r}")
            of_item = select_image_records().where(images.c.item_pk == row.id).order_by(images.c.id)
            found = [ImageRecord(*image) for image in connection.execute(of_item)]
        return ItemRecord(item_id, row.title, dict(row.attributes), found)

    def key(self, collection_id: int, item_id: str) -> int:
        """The primary key of an item; `NotFoundError` if it does not exist."""
        with self.database.read() as connection:
            pk = connection.scalar(_select_key(collection_id, item_id))
        if pk is None:
            raise NotFoundError(f"no item {item_id!r} in this collection")
        return int(pk)

    def summaries(self, pks: Iterable[int]) -> dict[int, ItemSummary]:
        """Summaries of items by key; deleted items are left out."""
        found: dict[int, ItemSummary] = {}
        with self.database.read() as connection:
            for chunk in chunks(pks):
                for pk, *rest in connection.execute(_SUMMARIES, {"pks": chunk}):
                    found[pk] = ItemSummary(*rest)
        return found

    def replace(
        self, collection_id: int, encoder_id: str, writes: Sequence[ImageWrite], *, generation: int
    ) -> bool | None:
        """Give one item exactly these images, searchable at once; True if the item is new.

        Returns None and writes nothing if `generation` is no longer the active one: its encoder may differ.
        """
        item_id = writes[0].item_id
        with self.database.write() as connection:
            lock_collection(connection, collection_id)
            if active_number(connection, collection_id) != generation:
                return None
            existed = connection.scalar(_select_key(collection_id, item_id)) is not None
            remove_tombstones(connection, collection_id, [item_id])
            pk = upsert_items(connection, collection_id, writes)[item_id]
            kept = [write.uri for write in writes]
            connection.execute(sa.delete(images).where(images.c.item_pk == pk, images.c.uri.not_in(kept)))
            image_ids = upsert_images(connection, {item_id: pk}, writes)
            write_vectors(connection, encoder_id, image_ids, writes)
            log_changes(connection, collection_id, [("updated" if existed else "added", pk, item_id)], live=True)
            return not existed

    def delete(self, collection_id: int, item_id: str) -> None:
        """Delete an item with its images and vectors; searches stop showing it at once.

        A tombstone keeps sources from adding it again, until it is restored or written with `replace`.

        Raises:
            NotFoundError: the item does not exist.
        """
        with self.database.write() as connection:
            lock_collection(connection, collection_id)
            pk = connection.scalar(_select_key(collection_id, item_id))
            if pk is None:
                raise NotFoundError(f"no item {item_id!r} in this collection")
            connection.execute(sa.delete(items).where(items.c.id == pk))
            add_tombstone(connection, collection_id, item_id)
            log_changes(connection, collection_id, [("deleted", pk, item_id)], live=True)


def _select_key(collection_id: int, item_id: str) -> Select[int]:
    return select(items.c.id).where(items.c.collection_id == collection_id, items.c.item_id == item_id)


# Every search runs this statement, so it is built once.
_SUMMARIES = select(items.c.id, items.c.item_id, items.c.title, items.c.attributes).where(
    items.c.id.in_(bindparam("pks", expanding=True))
)
