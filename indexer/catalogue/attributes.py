"""Attributes of items: names, most frequent values, and the items that match a filter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import func, select

from indexer.catalogue.collections import find_collection
from indexer.catalogue.engine import Database
from indexer.catalogue.schema import items
from indexer.catalogue.values import chunks

FACET_ATTRIBUTES = 50
FACET_VALUES = 100  # of an attribute
FACET_LENGTH = 200  # characters of a value; longer ones are texts, which nobody filters by


@dataclass
class Attributes:
    database: Database

    def facets(self, collection: str) -> dict[str, list[tuple[str, int]]]:
        """The most frequent values of the most frequent attributes, with their number of items.

        There are at most `FACET_VALUES` values of at most `FACET_ATTRIBUTES` attributes.
        """
        pairs = self._pairs()
        counted = (
            select(pairs.c.key, pairs.c.value, func.count().label("count"))
            .select_from(items.join(pairs, sa.true()))
            .where(items.c.collection_id == find_collection(self.database, collection))
            .where(func.length(pairs.c.value) <= FACET_LENGTH)
            .group_by(pairs.c.key, pairs.c.value)
            .subquery()
        )
        frequent_first = (counted.c.count.desc(), counted.c.value)
        ranked = select(
            *counted.c,
            func.row_number().over(partition_by=counted.c.key, order_by=frequent_first).label("place"),
            func.sum(counted.c.count).over(partition_by=counted.c.key).label("items"),
        ).subquery()
        query = select(ranked).where(ranked.c.place <= FACET_VALUES).order_by(ranked.c.key, ranked.c.place)
        found: dict[str, list[tuple[str, int]]] = {}
        frequency: dict[str, int] = {}
        with self.database.read() as connection:
            for key, value, count, _, total in connection.execute(query):
                found.setdefault(key, []).append((value, count))
                frequency[key] = total
        kept = set(sorted(found, key=lambda key: (-frequency[key], key))[:FACET_ATTRIBUTES])
        return {key: values for key, values in found.items() if key in kept}

    def names(self, collection_id: int) -> set[str]:
        pairs = self._pairs()
        query = select(pairs.c.key).select_from(items.join(pairs, sa.true())).distinct()
        with self.database.read() as connection:
            return set(connection.scalars(query.where(items.c.collection_id == collection_id)))

    def matching_items(
        self, collection_id: int, filters: Mapping[str, str], among: Iterable[int] | None = None
    ) -> list[int]:
        """Sorted keys of the items whose attributes have all of these values.

        Args:
            among: keys of the items that are looked at; None for all.
        """
        query = select(items.c.id).where(items.c.collection_id == collection_id).order_by(items.c.id)
        for key, value in filters.items():
            pairs = self._pairs()
            matches = (pairs.c.key == key) & (pairs.c.value == value)
            query = query.where(sa.exists(select(sa.literal(1)).select_from(pairs).where(matches)))
        with self.database.read() as connection:
            if among is None:
                return list(connection.scalars(query))
            parts = (connection.scalars(query.where(items.c.id.in_(chunk))) for chunk in chunks(sorted(among)))
            return [pk for part in parts for pk in part]

    def _pairs(self) -> Any:
        each = func.jsonb_each_text if self.database.is_postgresql else func.json_each
        return each(items.c.attributes).table_valued("key", "value")
