"""Items: reads, and live writes of single ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Select, bindparam, select

from indexer.catalogue.changes import log_changes
from indexer.catalogue.collections import find_collection, lock_collection
from indexer.catalogue.engine import Database
from indexer.catalogue.generations import active_number
from indexer.catalogue.images import select_image_records
from indexer.catalogue.records import OVER_HTTP, ImageRecord, ImageWrite, ItemRecord, ItemSummary
from indexer.catalogue.schema import images, items
from indexer.catalogue.tombstones import add_tombstones, remove_tombstones
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

    def summaries(self, pks: Iterable[int], shown: Mapping[int, int] | None = None) -> dict[int, ItemSummary]:
        """Summaries of items by key; deleted items are left out.

        Args:
            shown: the image_id, by key, of the image whose URI is wanted too.
        """
        shown = shown or {}
        found: dict[int, ItemSummary] = {}
        with self.database.read() as connection:
            for chunk in chunks(pks):
                wanted = {"pks": chunk, "shown": [shown[pk] for pk in chunk if pk in shown]}
                for pk, *rest in connection.execute(_SUMMARIES, wanted):
                    found[pk] = ItemSummary(*rest)
        return found

    def written_over_http(self, collection_id: int) -> set[str]:
        """The ids of the items that sources leave alone because they were written over HTTP."""
        query = select(items.c.item_id).select_from(images.join(items)).distinct()
        with self.database.read() as connection:
            return set(
                connection.scalars(query.where(items.c.collection_id == collection_id, images.c.source == OVER_HTTP))
            )

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

    def delete(self, collection_id: int, item_ids: Sequence[str], *, dry_run: bool = False) -> None:
        """Delete items with their images and vectors, all or none; searches stop showing them at once.

        A tombstone keeps sources from adding an item again, until it is restored or written with `replace`.

        Args:
            dry_run: check that the items exist, and delete nothing.

        Raises:
            NotFoundError: one of the items does not exist.
        """
        with self.database.read() if dry_run else self.database.write() as connection:
            if not dry_run:
                lock_collection(connection, collection_id)
            pks: dict[str, int] = {}
            query = select(items.c.item_id, items.c.id).where(items.c.collection_id == collection_id)
            for names in chunks(item_ids):
                pks |= {item_id: pk for item_id, pk in connection.execute(query.where(items.c.item_id.in_(names)))}
            if absent := [item_id for item_id in item_ids if item_id not in pks]:
                more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
                raise NotFoundError(f"no item {absent[0]!r}{more} in this collection")
            if dry_run:
                return
            for chunk in chunks(pks.values()):
                connection.execute(sa.delete(items).where(items.c.id.in_(chunk)))
            add_tombstones(connection, collection_id, pks)
            log_changes(connection, collection_id, [("deleted", pk, name) for name, pk in pks.items()], live=True)


def _select_key(collection_id: int, item_id: str) -> Select[int]:
    return select(items.c.id).where(items.c.collection_id == collection_id, items.c.item_id == item_id)


# Every search runs this statement, so it is built once.
_SUMMARIES = (
    select(items.c.id, items.c.item_id, items.c.title, items.c.attributes, images.c.uri)
    .select_from(
        items.outerjoin(images, (images.c.item_pk == items.c.id) & images.c.id.in_(bindparam("shown", expanding=True)))
    )
    .where(items.c.id.in_(bindparam("pks", expanding=True)))
)
