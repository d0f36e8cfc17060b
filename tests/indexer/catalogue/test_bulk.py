"""Rows that are inserted in bulk, on both databases."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy import select

from indexer.catalogue.bulk import insert_rows
from indexer.catalogue.home import Home
from indexer.catalogue.schema import items
from indexer.catalogue.values import now, utc


def test_rows_are_stored_as_given_with_rising_ids_and_a_refused_one_undoes_all(any_home: Home) -> None:
    collection_id = any_home.catalogue.ensure_collection("shop")
    at = now()
    rows = [
        {"collection_id": collection_id, "item_id": f"{number}\t\u00e9", "title": None if number % 2 else "a\\N",
         "attributes": {"colour": "r\u00f6d"}, "created_at": at, "updated_at": at}
        for number in range(1200)
    ]  # fmt: skip
    with any_home.catalogue.write() as connection:
        made = dict(insert_rows(connection, items, rows, items.c.item_id, items.c.id))
        assert insert_rows(connection, items, [], items.c.id) == []
    with any_home.catalogue.read() as connection:
        stored = list(connection.execute(select(items).order_by(items.c.id)).mappings())
    assert [{**row, "created_at": utc(row["created_at"]), "updated_at": utc(row["updated_at"])} for row in stored] == [
        {"id": made[str(row["item_id"])], **row} for row in rows
    ]
    fresh = {**rows[0], "item_id": "fresh"}
    with pytest.raises(sa.exc.IntegrityError), any_home.catalogue.write() as connection:
        insert_rows(connection, items, [fresh, rows[0]])
    with any_home.catalogue.write() as connection:
        assert connection.scalar(select(sa.func.count()).select_from(items)) == 1200
        ((first,),) = insert_rows(connection, items, [fresh], items.c.id)
    assert first > max(made.values())
