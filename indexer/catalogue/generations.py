"""Records of index generations, and which of them is active."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, func, select

from indexer.catalogue.collections import find_collection, lock_collection
from indexer.catalogue.engine import Database
from indexer.catalogue.records import GenerationRecord
from indexer.catalogue.schema import collections, encoders, generations, images
from indexer.catalogue.values import now, utc, utc_or_none
from indexer.catalogue.vectors import select_missing
from indexer.errors import NotFoundError


@dataclass
class Generations:
    database: Database

    def all(self, collection: str | None = None) -> list[GenerationRecord]:
        """The generations of one collection or of all, oldest first."""
        g = generations.c
        query = (
            select(
                collections.c.name, g.number, g.encoder_id, g.status, g.count, encoders.c.dim, encoders.c.metric,
                g.factory, g.recall_at_10, g.watermark, g.manifest_sha256, g.created_at, g.activated_at,
            )
            .select_from(generations.join(collections).join(encoders))
            .order_by(collections.c.name, g.number)
        )  # fmt: skip
        if collection is not None:
            query = query.where(g.collection_id == find_collection(self.database, collection))
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        found = [GenerationRecord(*tuple[Any, ...](row)) for row in rows]
        return [replace(r, created_at=utc(r.created_at), activated_at=utc_or_none(r.activated_at)) for r in found]

    def next_number(self, collection_id: int) -> int:
        query = select(func.max(generations.c.number)).where(generations.c.collection_id == collection_id)
        with self.database.read() as connection:
            return int(connection.scalar(query) or 0) + 1

    def add(self, collection_id: int, record: GenerationRecord, within: Connection | None = None) -> None:
        """Record a built and verified generation without activating it.

        Args:
            within: the transaction to do so in; None for one of its own.
        """
        with nullcontext(within) if within is not None else self.database.write() as connection:
            connection.execute(
                sa.insert(generations).values(
                    collection_id=collection_id,
                    number=record.number,
                    encoder_id=record.encoder_id,
                    status=record.status,
                    count=record.count,
                    recall_at_10=record.recall_at_10,
                    factory=record.factory,
                    watermark=record.watermark,
                    manifest_sha256=record.manifest_sha256,
                    created_at=record.created_at,
                )
            )

    def activate(self, collection_id: int, number: int) -> None:
        """Activate a generation and retire the active one, in one transaction."""
        with self.database.write() as connection:
            lock_collection(connection, collection_id)
            _activate(connection, collection_id, number)

    def activate_complete(self, collection_id: int, number: int, encoder_id: str) -> bool:
        """Like `activate`, but only if every searchable image has a vector by the generation's encoder."""
        missing = select_missing(collection_id, encoder_id, images.c.id).limit(1)
        with self.database.write() as connection:
            lock_collection(connection, collection_id)
            if connection.execute(missing).first() is not None:
                return False
            _activate(connection, collection_id, number)
            return True

    def mark_removed(self, collection_id: int, number: int) -> bool:
        """Record that a generation is removed; False if it has been activated meanwhile, and stays."""
        same = (generations.c.collection_id == collection_id) & (generations.c.number == number)
        unused = same & (generations.c.status != "active")
        with self.database.write() as connection:
            return connection.execute(sa.update(generations).where(unused).values(status="removed")).rowcount == 1


def active_number(connection: Connection, collection_id: int) -> int | None:
    return connection.scalar(
        select(generations.c.number).where(
            generations.c.collection_id == collection_id, generations.c.status == "active"
        )
    )


def _activate(connection: Connection, collection_id: int, number: int) -> None:
    of_collection = generations.c.collection_id == collection_id
    active = of_collection & (generations.c.status == "active")
    connection.execute(sa.update(generations).where(active).values(status="retired"))
    changed = connection.execute(
        sa.update(generations)
        .where(of_collection, generations.c.number == number, generations.c.status != "removed")
        .values(status="active", activated_at=now())
    )
    if changed.rowcount != 1:
        raise NotFoundError(f"no generation {number} to activate; see `nitamono generations list`")
