"""Runs of `nitamono retrain`: plan, decision and outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import func, select

from indexer.catalogue.collections import find_collection, lock_collection
from indexer.catalogue.engine import Database
from indexer.catalogue.records import RetrainRecord, RetrainStatus
from indexer.catalogue.schema import retrains
from indexer.catalogue.values import now, utc, utc_or_none


@dataclass
class Retrains:
    database: Database

    def add(self, collection_id: int, plan: Mapping[str, Any]) -> int:
        """Record a retraining that starts now; returns its number."""
        highest = select(func.max(retrains.c.number)).where(retrains.c.collection_id == collection_id)
        with self.database.write() as connection:
            lock_collection(connection, collection_id)
            number = int(connection.scalar(highest) or 0) + 1
            values = {"collection_id": collection_id, "number": number, "status": "running", "plan": dict(plan)}
            connection.execute(sa.insert(retrains).values(**values, created_at=now()))
        return number

    def decide(self, collection_id: int, number: int, decision: Mapping[str, Any]) -> None:
        """Store the decision with its evidence."""
        self._update(collection_id, number, {"decision": dict(decision)})

    def end(self, collection_id: int, number: int, status: RetrainStatus, generation: int | None) -> None:
        self._update(collection_id, number, {"status": status, "generation": generation, "ended_at": now()})

    def all(self, collection: str) -> list[RetrainRecord]:
        """The retrainings of a collection, oldest first."""
        r = retrains.c
        query = (
            select(r.number, r.status, r.plan, r.decision, r.generation, r.created_at, r.ended_at)
            .where(r.collection_id == find_collection(self.database, collection))
            .order_by(r.number)
        )
        with self.database.read() as connection:
            found = [RetrainRecord(collection, *tuple[Any, ...](row)) for row in connection.execute(query)]
        return [replace(r, created_at=utc(r.created_at), ended_at=utc_or_none(r.ended_at)) for r in found]

    def _update(self, collection_id: int, number: int, values: Mapping[str, Any]) -> None:
        same = (retrains.c.collection_id == collection_id) & (retrains.c.number == number)
        with self.database.write() as connection:
            connection.execute(sa.update(retrains).where(same).values(values))
