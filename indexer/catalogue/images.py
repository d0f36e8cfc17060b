"""Images of items: their files, status and batch writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Select, func, select

from indexer.catalogue.changes import log_changes
from indexer.catalogue.collections import lock_collection
from indexer.catalogue.engine import Database
from indexer.catalogue.records import ImageRecord, ImageState, ImageWrite, PhotoRecord, StoredImage
from indexer.catalogue.schema import collections, images, items, vectors
from indexer.catalogue.tombstones import without_deleted
from indexer.catalogue.values import chunks
from indexer.catalogue.vectors import is_current_vector
from indexer.catalogue.writes import (
    known_writes,
    move_images,
    upsert_images,
    upsert_items,
    without_replaced,
    write_vectors,
)
from indexer.errors import NotFoundError


@dataclass
class Images:
    database: Database

    def get(self, collection: str, image_id: int) -> ImageRecord:
        """An image of a collection; `NotFoundError` if it does not exist."""
        query = select_image_records().select_from(images.join(items).join(collections))
        with self.database.read() as connection:
            row = connection.execute(query.where(collections.c.name == collection, images.c.id == image_id)).first()
        if row is None:
            raise NotFoundError(f"no image {image_id} in collection {collection!r}")
        return ImageRecord(*row)

    def states(self, collection_id: int, encoder_id: str, item_ids: Iterable[str]) -> dict[tuple[str, str], ImageState]:
        """The stored state of these items' images, by (item_id, uri)."""
        query = (
            select(
                items.c.item_id,
                images.c.uri,
                images.c.id,
                images.c.sha256,
                images.c.size,
                images.c.mtime_ns,
                images.c.status,
                images.c.mask_uri,
                items.c.title,
                items.c.attributes,
                images.c.source,
                vectors.c.image_id.is_not(None),
            )
            .select_from(images.join(items).outerjoin(vectors, is_current_vector(encoder_id)))
            .where(items.c.collection_id == collection_id)
        )
        found: dict[tuple[str, str], ImageState] = {}
        with self.database.read() as connection:
            for chunk in chunks(sorted(set(item_ids))):
                for item_id, uri, *rest in connection.execute(query.where(items.c.item_id.in_(chunk))).all():
                    found[item_id, uri] = ImageState(*rest)
        return found

    def write(
        self,
        collection_id: int,
        encoder_id: str,
        writes: Sequence[ImageWrite],
        *,
        live: bool,
        known_only: bool = False,
        restore_replaced: bool = False,
    ) -> None:
        """Store a batch of images with their items, vectors and change log in one transaction.

        Images of items that a person deleted or wrote over HTTP, meanwhile or before, are left out.

        Args:
            known_only: write images that are in the catalogue, whatever their source, and skip those that are not, for
                example because they were deleted meanwhile.
            restore_replaced: return items that were written over HTTP to their source.
        """
        with self.database.write() as connection:
            lock_collection(connection, collection_id)
            writes = without_deleted(connection, collection_id, writes)
            if known_only:
                writes = known_writes(connection, collection_id, writes)
            else:
                writes = without_replaced(connection, collection_id, writes, restore=restore_replaced)
            move_images(connection, collection_id, writes)
            pks = upsert_items(connection, collection_id, writes)
            image_ids = upsert_images(connection, pks, writes)
            write_vectors(connection, encoder_id, image_ids, writes)
            logged = {(write.item_id, write.kind): pks[write.item_id] for write in writes if write.kind}
            changes = [(kind, pk, item_id) for (item_id, kind), pk in logged.items()]
            log_changes(connection, collection_id, changes, live=live)

    def stored(self, collection_id: int) -> Iterator[StoredImage]:
        """Every image of a collection, in order of item_id; the read transaction lasts as long as the iterator."""
        c = images.c
        query = (
            select(c.id, items.c.id, items.c.item_id, c.uri, c.sha256, c.size, c.status, c.source)
            .select_from(images.join(items))
            .where(items.c.collection_id == collection_id)
            .order_by(items.c.item_id, c.id)
        )
        with self.database.read() as connection:
            for row in connection.execution_options(yield_per=10_000).execute(query):
                yield StoredImage(*row)

    def of_source(self, collection_id: int, source: str) -> int:
        """The number of images that belong to a source."""
        query = select(func.count()).select_from(images.join(items))
        with self.database.read() as connection:
            found = connection.scalar(query.where(items.c.collection_id == collection_id, images.c.source == source))
        return int(found or 0)

    def remove(self, collection_id: int, removed: Sequence[StoredImage]) -> None:
        """Delete images, and the items of which none is left; searches stop showing them at once.

        Images that belong to another source by now are kept.
        """
        pks = {image.item_pk: image.item_id for image in removed}
        with self.database.write() as connection:
            lock_collection(connection, collection_id)
            for source in {image.source for image in removed}:
                same_source = images.c.source.is_(None) if source is None else images.c.source == source
                for chunk in chunks(image.image_id for image in removed if image.source == source):
                    connection.execute(sa.delete(images).where(images.c.id.in_(chunk), same_source))
            logged: list[tuple[str, int, str]] = []
            for chunk in chunks(pks):
                left = set(connection.scalars(select(images.c.item_pk).where(images.c.item_pk.in_(chunk)).distinct()))
                empty = [pk for pk in chunk if pk not in left]
                deleted = sa.delete(items).where(items.c.id.in_(empty)).returning(items.c.id)
                logged += [("deleted", pk, pks[pk]) for pk in connection.scalars(deleted)]
                logged += [("updated", pk, pks[pk]) for pk in chunk if pk in left]
            log_changes(connection, collection_id, logged, live=True)

    def siblings(self, image_ids: Iterable[int]) -> dict[int, list[tuple[int, str]]]:
        """image_id and URI of all images of the same item, by image_id, usable ones first."""
        asked = images.alias()
        query = select(asked.c.id, images.c.id, images.c.uri).join(images, images.c.item_pk == asked.c.item_pk)
        query = query.order_by(images.c.status != "ok", images.c.id)
        found: dict[int, list[tuple[int, str]]] = {}
        with self.database.read() as connection:
            for chunk in chunks(image_ids):
                for image_id, *sibling in connection.execute(query.where(asked.c.id.in_(chunk))):
                    found.setdefault(image_id, []).append((sibling[0], sibling[1]))
        return found

    def photos(self, collection_id: int) -> list[PhotoRecord]:
        """Every searchable photo with its item's attributes, in order of item_id."""
        query = (
            select(items.c.item_id, images.c.uri, images.c.sha256, images.c.mask_uri, items.c.attributes)
            .select_from(images.join(items))
            .where(items.c.collection_id == collection_id, images.c.status == "ok")
            .order_by(items.c.item_id, images.c.id)
        )
        with self.database.read() as connection:
            return [PhotoRecord(*row) for row in connection.execute(query)]

    def uris(self) -> list[str]:
        """The distinct URIs of all images and masks, of every collection."""
        with self.database.read() as connection:
            return sorted(connection.execute(_select_uris()).scalars())

    @contextmanager
    def no_writes(self) -> Iterator[set[str]]:
        """The distinct URIs of all images and masks, in a transaction that keeps every write of items waiting."""
        with self.database.write() as connection:
            for collection_id in connection.scalars(select(collections.c.id).order_by(collections.c.id)).all():
                lock_collection(connection, collection_id)
            yield set(connection.scalars(_select_uris()))

    def files(self, image_ids: Iterable[int]) -> dict[int, tuple[str, str | None]]:
        """URI and content SHA-256 of images, by image_id."""
        query = select(images.c.id, images.c.uri, images.c.sha256)
        found: dict[int, tuple[str, str | None]] = {}
        with self.database.read() as connection:
            for chunk in chunks(image_ids):
                for image_id, uri, sha256 in connection.execute(query.where(images.c.id.in_(chunk))):
                    found[image_id] = (uri, sha256)
        return found


def _select_uris() -> Any:
    """URIs of images and of masks."""
    return select(images.c.uri).union(select(images.c.mask_uri).where(images.c.mask_uri.is_not(None)))


def select_image_records() -> Select[Any]:
    """The columns of an `ImageRecord`, in order."""
    c = images.c
    return select(c.id, c.uri, c.sha256, c.width, c.height, c.status, c.reason)
