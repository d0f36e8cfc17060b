"""Collections and their counts."""

from __future__ import annotations

import re
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection, func, select

from indexer.catalogue.engine import Database
from indexer.catalogue.records import CollectionRecord
from indexer.catalogue.schema import collections, generations, images, items, rejects
from indexer.catalogue.values import now
from indexer.errors import InvalidRequestError, NotFoundError
from indexer.vectors import IndexOptions

COLLECTION_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass
class Collections:
    database: Database

    def ensure(self, name: str) -> int:
        """The id of a collection, which is created if it does not exist.

        Raises:
            InvalidRequestError: the name is not 1 to 64 lower-case letters, digits, `-` and `_`.
        """
        if not COLLECTION_NAME.fullmatch(name):
            raise InvalidRequestError(
                "collection", f"collection {name!r}: use 1 to 64 lower-case letters, digits, '-' or '_'"
            )
        with self.database.write() as connection:
            found = connection.scalar(select(collections.c.id).where(collections.c.name == name))
            if found is None:
                found = connection.scalar(
                    sa.insert(collections).values(name=name, created_at=now()).returning(collections.c.id)
                )
            return int(found or 0)

    def id_of(self, name: str) -> int:
        """The id of a collection; `NotFoundError` names the collections that exist."""
        return find_collection(self.database, name)

    def index_options(self, collection_id: int) -> IndexOptions:
        """How the index of a collection is chosen."""
        c = collections.c
        query = select(c.index_kind, c.index_recall, c.index_memory).where(c.id == collection_id)
        with self.database.read() as connection:
            return IndexOptions(*connection.execute(query).one())

    def set_index_options(self, collection_id: int, options: IndexOptions) -> None:
        """Choose the index that later generations of a collection get."""
        values = {"index_kind": options.kind, "index_recall": options.recall, "index_memory": options.memory}
        with self.database.write() as connection:
            connection.execute(sa.update(collections).where(collections.c.id == collection_id).values(values))

    def active(self) -> list[tuple[str, int | None]]:
        """Names of the collections and numbers of their active generations, without counting anything."""
        active = (generations.c.collection_id == collections.c.id) & (generations.c.status == "active")
        query = select(collections.c.name, generations.c.number).select_from(collections.outerjoin(generations, active))
        with self.database.read() as connection:
            return [(name, number) for name, number in connection.execute(query.order_by(collections.c.name))]

    def all(self) -> list[CollectionRecord]:
        """All collections; `rejected` counts images and source rows, like `nitamono index` and `rejects list`."""
        item_count = select(func.count()).where(items.c.collection_id == collections.c.id).scalar_subquery()
        of_images = select(func.count()).select_from(images.join(items))
        of_images = of_images.where(items.c.collection_id == collections.c.id)
        rejected_images = of_images.where(images.c.status == "rejected").scalar_subquery()
        rejected_rows = select(func.count()).where(rejects.c.collection_id == collections.c.id).scalar_subquery()
        active = (generations.c.collection_id == collections.c.id) & (generations.c.status == "active")
        query = (
            select(
                collections.c.name,
                item_count.label("items"),
                of_images.where(images.c.status == "ok").scalar_subquery().label("images"),
                (rejected_images + rejected_rows).label("rejected"),
                generations.c.number,
                generations.c.encoder_id,
            )
            .select_from(collections.outerjoin(generations, active))
            .order_by(collections.c.name)
        )
        with self.database.read() as connection:
            return [CollectionRecord(*row) for row in connection.execute(query)]


def find_collection(database: Database, name: str) -> int:
    with database.read() as connection:
        found = connection.scalar(select(collections.c.id).where(collections.c.name == name))
        if found is not None:
            return int(found)
        known = connection.scalars(select(collections.c.name).order_by(collections.c.name).limit(20)).all()
    remedy = f"existing ones: {', '.join(known)}" if known else "run `nitamono index SOURCE` to create one"
    raise NotFoundError(f"no collection {name!r}; {remedy}")


def lock_collection(connection: Connection, collection_id: int) -> None:
    """Make writers of a collection take turns on PostgreSQL; on SQLite, BEGIN IMMEDIATE has already done so."""
    connection.execute(select(collections.c.id).where(collections.c.id == collection_id).with_for_update())
