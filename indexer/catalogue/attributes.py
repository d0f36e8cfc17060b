"""Attributes of items: names, most frequent values, and the items that match a filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import func, select

from indexer.catalogue.collections import find_collection
from indexer.catalogue.engine import Database
from indexer.catalogue.schema import items

FACET_VALUES = 100


@dataclass
class Attributes:
    database: Database

    def facets(self, collection: str) -> dict[str, list[tuple[str, int]]]:
        """The `FACET_VALUES` most frequent values of each attribute, with their number of items."""
        pairs = self._pairs()
        query = (
            select(pairs.c.key, pairs.c.value, func.count().label("count"))
            .select_from(items.join(pairs, sa.true()))
            .where(items.c.collection_id == find_collection(self.database, collection))
            .group_by(pairs.c.key, pairs.c.value)
            .order_by(pairs.c.key, sa.desc("count"), pairs.c.value)
        )
        found: dict[str, list[tuple[str, int]]] = {}
        with self.database.read() as connection:
            for key, value, count in connection.execute(query):
                listed = found.setdefault(key, [])
                if len(listed) < FACET_VALUES:
                    listed.append((value, count))
        return found

    def names(self, collection_id: int) -> set[str]:
        pairs = self._pairs()
        query = select(pairs.c.key).select_from(items.join(pairs, sa.true())).distinct()
        with self.database.read() as connection:
            return set(connection.scalars(query.where(items.c.collection_id == collection_id)))

    def matching_items(self, collection_id: int, filters: Mapping[str, str]) -> list[int]:
        """Sorted keys of the items whose attributes have all of these values."""
        query = select(items.c.id).where(items.c.collection_id == collection_id).order_by(items.c.id)
        for key, value in filters.items():
            pairs = self._pairs()
            matches = (pairs.c.key == key) & (pairs.c.value == value)
            query = query.where(sa.exists(select(sa.literal(1)).select_from(pairs).where(matches)))
        with self.database.read() as connection:
            return list(connection.scalars(query))

    def _pairs(self) -> Any:
        each = func.jsonb_each_text if self.database.is_postgresql else func.json_each
        return each(items.c.attributes).table_valued("key", "value")
