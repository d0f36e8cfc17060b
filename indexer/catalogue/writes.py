"""The parts of a write: items, images and vectors of a batch, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, func, select

from indexer.catalogue.bulk import insert_rows
from indexer.catalogue.records import OVER_HTTP, ImageWrite
from indexer.catalogue.schema import images, items, vectors
from indexer.catalogue.values import chunks, now, to_blob

IMAGE_FIELDS = ("mask_uri", "sha256", "size", "mtime_ns", "width", "height", "status", "reason", "source")


def known_writes(connection: Connection, collection_id: int, writes: Sequence[ImageWrite]) -> list[ImageWrite]:
    """The writes whose item and image are in the catalogue."""
    query = select(items.c.item_id, images.c.uri).select_from(images.join(items))
    query = query.where(items.c.collection_id == collection_id)
    known: set[tuple[str, str]] = set()
    for chunk in chunks({write.item_id: None for write in writes}):
        known.update((item_id, uri) for item_id, uri in connection.execute(query.where(items.c.item_id.in_(chunk))))
    return [write for write in writes if (write.item_id, write.uri) in known]


def without_replaced(
    connection: Connection, collection_id: int, writes: Sequence[ImageWrite], *, restore: bool
) -> list[ImageWrite]:
    """The writes of items that were not written over HTTP.

    Args:
        restore: return an item to its source, and delete its images of HTTP, if the source has a usable one.
    """
    query = select(items.c.item_id, images.c.uri, images.c.id).select_from(images.join(items))
    query = query.where(items.c.collection_id == collection_id, images.c.source == OVER_HTTP)
    replaced: dict[str, dict[str, int]] = {}
    for names in chunks({write.item_id: None for write in writes}):
        for item_id, uri, image_id in connection.execute(query.where(items.c.item_id.in_(names))):
            replaced.setdefault(item_id, {})[uri] = image_id
    if restore:
        listed = {(write.item_id, write.uri) for write in writes}
        restored = {write.item_id: None for write in writes if write.status == "ok" and write.item_id in replaced}
        ids = [pk for item in restored for uri, pk in replaced.pop(item).items() if (item, uri) not in listed]
        for chunk in chunks(ids):
            connection.execute(sa.delete(images).where(images.c.id.in_(chunk)))
    return [write for write in writes if write.item_id not in replaced]


def move_images(connection: Connection, collection_id: int, writes: Sequence[ImageWrite]) -> None:
    """Give moved images their new place and, where it differs, their items the new id.

    An image or item that was deleted or replaced meanwhile is left as it is, and the write adds another.
    """
    moved = [(write, write.moved_from) for write in writes if write.moved_from is not None]
    renamed = [
        {"pk": old.item_pk, "old_id": old.item_id, "new_id": write.item_id}
        for write, old in moved
        if old.item_id != write.item_id
    ]
    if renamed:
        same = items.alias()
        taken = sa.exists().where(same.c.collection_id == collection_id, same.c.item_id == sa.bindparam("new_id"))
        rename = sa.update(items).where(items.c.id == sa.bindparam("pk"), items.c.item_id == sa.bindparam("old_id"))
        values = {"item_id": sa.bindparam("new_id"), "updated_at": now()}
        connection.execute(rename.where(~taken).values(values), renamed)
    if moved:
        of_item = select(items.c.id).where(
            items.c.collection_id == collection_id, items.c.item_id == sa.bindparam("of_item_id")
        )
        move = sa.update(images).where(images.c.id == sa.bindparam("pk"), images.c.item_pk == of_item.scalar_subquery())
        places = [{"pk": old.image_id, "of_item_id": write.item_id, "new_uri": write.uri} for write, old in moved]
        connection.execute(move.values(uri=sa.bindparam("new_uri")), places)


def upsert_items(connection: Connection, collection_id: int, writes: Sequence[ImageWrite]) -> dict[str, int]:
    """Insert the new items of a batch and update changed titles and attributes; returns item_id -> key."""
    describing = {write.item_id: write for write in reversed(writes) if write.describes}
    pks: dict[str, int] = {}
    changed: list[tuple[int, ImageWrite]] = []
    query = select(items.c.item_id, items.c.id, items.c.title, items.c.attributes)
    query = query.where(items.c.collection_id == collection_id)
    for chunk in chunks({write.item_id: None for write in writes}):
        for item_id, pk, title, attributes in connection.execute(query.where(items.c.item_id.in_(chunk))):
            pks[item_id] = pk
            new = describing.get(item_id)
            if new is not None and (new.title, new.attributes) != (title, attributes):
                changed.append((pk, new))
    _describe_items(connection, changed)
    first = {write.item_id: write for write in reversed(writes)}
    missing = [first[item_id] for item_id in dict.fromkeys(write.item_id for write in writes) if item_id not in pks]
    return pks | _insert_items(connection, collection_id, missing)


def _describe_items(connection: Connection, changed: Sequence[tuple[int, ImageWrite]]) -> None:
    if not changed:
        return
    values = {
        "title": sa.bindparam("new_title"),
        "attributes": sa.bindparam("new_attributes", type_=items.c.attributes.type),
        "updated_at": now(),
    }
    rows = [{"pk": pk, "new_title": new.title, "new_attributes": new.attributes} for pk, new in changed]
    connection.execute(sa.update(items).where(items.c.id == sa.bindparam("pk")).values(values), rows)


def _insert_items(connection: Connection, collection_id: int, writes: Sequence[ImageWrite]) -> dict[str, int]:
    at = now()
    rows = [
        {"collection_id": collection_id, "item_id": write.item_id, "title": write.title,
         "attributes": write.attributes, "created_at": at, "updated_at": at}
        for write in writes
    ]  # fmt: skip
    return dict(insert_rows(connection, items, rows, items.c.item_id, items.c.id))


def upsert_images(
    connection: Connection, pks: Mapping[str, int], writes: Sequence[ImageWrite]
) -> dict[tuple[str, str], int]:
    """Insert or update the images of a batch; returns (item_id, uri) -> image_id.

    A field that a write leaves None keeps its stored value, except for `reason`.
    """
    by_pk = {pk: item_id for item_id, pk in pks.items()}
    ids: dict[tuple[str, str], int] = {}
    query = select(images.c.item_pk, images.c.uri, images.c.id)
    for chunk in chunks(by_pk):
        for pk, uri, image_id in connection.execute(query.where(images.c.item_pk.in_(chunk))):
            ids[by_pk[pk], uri] = image_id
    _update_images(connection, [(ids[w.item_id, w.uri], w) for w in writes if (w.item_id, w.uri) in ids])
    missing = [(pks[w.item_id], w) for w in writes if (w.item_id, w.uri) not in ids]
    return ids | {(by_pk[pk], uri): image_id for pk, uri, image_id in _insert_images(connection, missing)}


def _update_images(connection: Connection, known: Sequence[tuple[int, ImageWrite]]) -> None:
    if not known:
        return
    values: dict[str, Any] = {
        name: func.coalesce(sa.bindparam(f"new_{name}", type_=images.c[name].type), images.c[name])
        for name in IMAGE_FIELDS
    }
    values["reason"] = sa.bindparam("new_reason", type_=images.c.reason.type)
    rows = [
        {"pk": image_id, **{f"new_{name}": getattr(write, name) for name in IMAGE_FIELDS}} for image_id, write in known
    ]
    connection.execute(sa.update(images).where(images.c.id == sa.bindparam("pk")).values(values), rows)


def _insert_images(connection: Connection, missing: Sequence[tuple[int, ImageWrite]]) -> list[tuple[Any, ...]]:
    """Insert images of items by key; returns (item key, uri, image_id) of each."""
    rows = [
        {"item_pk": pk, "uri": write.uri, **{name: getattr(write, name) for name in IMAGE_FIELDS}}
        for pk, write in missing
    ]
    return insert_rows(connection, images, rows, images.c.item_pk, images.c.uri, images.c.id)


def write_vectors(
    connection: Connection, encoder_id: str, image_ids: Mapping[tuple[str, str], int], writes: Sequence[ImageWrite]
) -> None:
    """Store a batch's vectors; this encoder's older vectors of these images are deleted."""
    values = [
        {
            "image_id": image_ids[write.item_id, write.uri],
            "sha256": write.sha256,
            "encoder_id": encoder_id,
            "vector": to_blob(write.vector),
        }
        for write in writes
        if write.vector is not None
    ]
    for chunk in chunks([value["image_id"] for value in values]):
        old = vectors.c.image_id.in_(chunk) & (vectors.c.encoder_id == encoder_id)
        connection.execute(sa.delete(vectors).where(old))
    insert_rows(connection, vectors, values)
