"""The catalogue: the one file with SQL, for SQLite (WAL) and PostgreSQL.

Every write is one transaction that first locks its collection's row, so the change log's ids rise in commit order and a
generation's watermark (the last change it includes) leaves nothing out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, Row, Select, event, func, select

from indexer.catalogue.records import (
    ApiKeyRecord,
    CollectionRecord,
    EncoderRecord,
    GenerationRecord,
    ImageRecord,
    ImageState,
    ImageWrite,
    ItemRecord,
    ItemSummary,
    PhotoRecord,
    RejectRecord,
    RetrainRecord,
    RetrainStatus,
    SearchState,
    StoredPhoto,
)
from indexer.catalogue.schema import (
    api_keys,
    calibrations,
    changes,
    collections,
    encoders,
    generations,
    images,
    items,
    recent_queries,
    rejects,
    retrains,
    vectors,
)
from indexer.errors import BusyError, IndexerError, InvalidRequestError, NotFoundError

COLLECTION_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
SEARCHABLE_KINDS = ("added", "updated", "deleted")  # the changes that a new generation would show
CHUNK = 500  # values per IN list: SQLite's oldest limit is 999
T = TypeVar("T")


def create_engine(url: str) -> Engine:
    """An engine with the settings we rely on: WAL, full fsync and foreign keys on SQLite, snapshots on PostgreSQL.

    Raises:
        IndexerError: the URL is not one that SQLAlchemy understands, or its driver is not installed.
    """
    try:
        engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except (sa.exc.ArgumentError, ModuleNotFoundError) as exc:
        raise IndexerError(f"database URL {_without_password(url)!r} cannot be used ({exc})") from exc
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we send BEGIN ourselves: the driver's own would come too late for a write
    cursor = connection.cursor()
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


@contextmanager
def _translated_errors() -> Iterator[None]:
    """The database's own failures (locked, full, gone) as our errors; anything else is a bug and stays one."""
    try:
        yield
    except sa.exc.OperationalError as exc:
        reason = str(exc.orig).strip().splitlines()[0]
        if "locked" in reason:
            raise BusyError(f"the catalogue is being written by another process ({reason}); try again") from exc
        raise IndexerError(f"the catalogue's database failed ({reason})") from exc


def _without_password(url: str) -> str:
    return re.sub(r"://([^:/@]+):[^@]*@", r"://\1:***@", url)


class Catalogue:
    """Collections of items with images, their vectors, generations and change log."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent snapshot."""
        with _translated_errors(), self.engine.connect() as connection:
            if self.engine.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with (
            _translated_errors(),
            self.engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    # Collections

    def ensure_collection(self, name: str) -> int:
        """The id of a collection, which is made where there is none.

        Raises:
            InvalidRequestError: the name is not lower-case letters, digits, `-` and `_`, at most 64.
        """
        if not COLLECTION_NAME.fullmatch(name):
            raise InvalidRequestError(
                "collection", f"collection {name!r}: use 1 to 64 lower-case letters, digits, '-' or '_'"
            )
        with self.write() as connection:
            found = connection.scalar(select(collections.c.id).where(collections.c.name == name))
            if found is None:
                found = connection.scalar(
                    sa.insert(collections).values(name=name, created_at=_now()).returning(collections.c.id)
                )
            return int(found or 0)

    def collection_id(self, name: str) -> int:
        """The id of a collection; `NotFoundError` names the ones there are."""
        with self.read() as connection:
            found = connection.scalar(select(collections.c.id).where(collections.c.name == name))
            if found is not None:
                return int(found)
            known = connection.scalars(select(collections.c.name).order_by(collections.c.name).limit(20)).all()
        there = ", ".join(known) or "none yet; run `nitamono index SOURCE` to make one"
        raise NotFoundError(f"no collection {name!r}; there is {there}")

    def collections(self) -> list[CollectionRecord]:
        item_count = select(func.count()).where(items.c.collection_id == collections.c.id).scalar_subquery()
        of_images = select(func.count()).select_from(images.join(items))
        of_images = of_images.where(items.c.collection_id == collections.c.id)
        active = (generations.c.collection_id == collections.c.id) & (generations.c.status == "active")
        query = (
            select(
                collections.c.name,
                item_count.label("items"),
                of_images.where(images.c.status == "ok").scalar_subquery().label("images"),
                of_images.where(images.c.status == "rejected").scalar_subquery().label("rejected"),
                generations.c.number,
                generations.c.encoder_id,
            )
            .select_from(collections.outerjoin(generations, active))
            .order_by(collections.c.name)
        )
        with self.read() as connection:
            return [CollectionRecord(*row) for row in connection.execute(query)]

    def facets(self, collection: str, *, values: int = 100) -> dict[str, list[tuple[str, int]]]:
        """For each attribute its most frequent values with their number of items."""
        pairs = self._attribute_pairs()
        query = (
            select(pairs.c.key, pairs.c.value, func.count().label("count"))
            .select_from(items.join(pairs, sa.true()))
            .where(items.c.collection_id == self.collection_id(collection))
            .group_by(pairs.c.key, pairs.c.value)
            .order_by(pairs.c.key, sa.desc("count"), pairs.c.value)
        )
        found: dict[str, list[tuple[str, int]]] = {}
        with self.read() as connection:
            for key, value, count in connection.execute(query):
                listed = found.setdefault(key, [])
                if len(listed) < values:
                    listed.append((value, count))
        return found

    def attribute_names(self, collection_id: int) -> set[str]:
        pairs = self._attribute_pairs()
        query = select(pairs.c.key).select_from(items.join(pairs, sa.true())).distinct()
        with self.read() as connection:
            return set(connection.scalars(query.where(items.c.collection_id == collection_id)))

    def matching_items(self, collection_id: int, filters: Mapping[str, str]) -> list[int]:
        """Keys of the items whose attributes have all of these values."""
        query = select(items.c.id).where(items.c.collection_id == collection_id).order_by(items.c.id)
        for key, value in filters.items():
            pairs = self._attribute_pairs()
            matches = (pairs.c.key == key) & (pairs.c.value == value)
            query = query.where(sa.exists(select(sa.literal(1)).select_from(pairs).where(matches)))
        with self.read() as connection:
            return list(connection.scalars(query))

    def _attribute_pairs(self) -> Any:
        each = func.jsonb_each_text if self.engine.dialect.name == "postgresql" else func.json_each
        return each(items.c.attributes).table_valued("key", "value")

    # Items and images

    def image_states(
        self, collection_id: int, encoder_id: str, item_ids: Iterable[str]
    ) -> dict[tuple[str, str], ImageState]:
        """What is known of these items' images, by (item_id, uri)."""
        has_vector = _current_vector(encoder_id)
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
                vectors.c.image_id.is_not(None),
            )
            .select_from(images.join(items).outerjoin(vectors, has_vector))
            .where(items.c.collection_id == collection_id)
        )
        found: dict[tuple[str, str], ImageState] = {}
        with self.read() as connection:
            for chunk in _chunks(sorted(set(item_ids))):
                for item_id, uri, *rest in connection.execute(query.where(items.c.item_id.in_(chunk))):
                    found[item_id, uri] = ImageState(*rest)
        return found

    def write_images(
        self,
        collection_id: int,
        encoder_id: str,
        writes: Sequence[ImageWrite],
        *,
        live: bool,
        known_only: bool = False,
    ) -> None:
        """Store one batch of images with their items, vectors and change log, all or nothing.

        Args:
            known_only: leave out those that are not in the catalogue, or no longer.
        """
        with self.write() as connection:
            self._lock(connection, collection_id)
            if known_only:
                writes = _known_writes(connection, collection_id, writes)
            pks = _upsert_items(connection, collection_id, writes)
            image_ids = _upsert_images(connection, pks, writes)
            _write_vectors(connection, encoder_id, image_ids, writes)
            logged = {(write.item_id, write.kind): pks[write.item_id] for write in writes if write.kind}
            _log(connection, collection_id, [(kind, pk, item_id) for (item_id, kind), pk in logged.items()], live=live)

    def replace_item(
        self, collection_id: int, encoder_id: str, writes: Sequence[ImageWrite], *, generation: int
    ) -> bool | None:
        """Make one item hold these images alone, searchable at once; True if it is new.

        None, with nothing written, when `generation` is no longer the active one: its encoder may differ.
        """
        item_id = writes[0].item_id
        with self.write() as connection:
            self._lock(connection, collection_id)
            if _active_number(connection, collection_id) != generation:
                return None
            existed = connection.scalar(_select_item(collection_id, item_id)) is not None
            pk = _upsert_items(connection, collection_id, writes)[item_id]
            kept = [write.uri for write in writes]
            connection.execute(sa.delete(images).where(images.c.item_pk == pk, images.c.uri.not_in(kept)))
            image_ids = _upsert_images(connection, {item_id: pk}, writes)
            _write_vectors(connection, encoder_id, image_ids, writes)
            _log(connection, collection_id, [("updated" if existed else "added", pk, item_id)], live=True)
            return not existed

    def delete_item(self, collection_id: int, item_id: str) -> None:
        """Remove an item, its images and vectors, at once from search too; `NotFoundError` where there is none."""
        with self.write() as connection:
            self._lock(connection, collection_id)
            pk = connection.scalar(_select_item(collection_id, item_id))
            if pk is None:
                raise NotFoundError(f"no item {item_id!r} in this collection")
            connection.execute(sa.delete(items).where(items.c.id == pk))
            _log(connection, collection_id, [("deleted", pk, item_id)], live=True)

    def item(self, collection: str, item_id: str) -> ItemRecord:
        collection_id = self.collection_id(collection)
        with self.read() as connection:
            row = connection.execute(
                select(items.c.id, items.c.title, items.c.attributes).where(
                    items.c.collection_id == collection_id, items.c.item_id == item_id
                )
            ).first()
            if row is None:
                raise NotFoundError(f"no item {item_id!r} in collection {collection!r}")
            of_item = _select_image_records().where(images.c.item_pk == row.id).order_by(images.c.id)
            found = [ImageRecord(*image) for image in connection.execute(of_item)]
        return ItemRecord(item_id, row.title, dict(row.attributes), found)

    def image(self, collection: str, image_id: int) -> ImageRecord:
        query = _select_image_records().select_from(images.join(items).join(collections))
        with self.read() as connection:
            row = connection.execute(query.where(collections.c.name == collection, images.c.id == image_id)).first()
        if row is None:
            raise NotFoundError(f"no image {image_id} in collection {collection!r}")
        return ImageRecord(*row)

    def item_pk(self, collection_id: int, item_id: str) -> int:
        with self.read() as connection:
            pk = connection.scalar(_select_item(collection_id, item_id))
        if pk is None:
            raise NotFoundError(f"no item {item_id!r} in this collection")
        return int(pk)

    def summaries(self, pks: Iterable[int]) -> dict[int, ItemSummary]:
        query = select(items.c.id, items.c.item_id, items.c.title, items.c.attributes)
        found: dict[int, ItemSummary] = {}
        with self.read() as connection:
            for chunk in _chunks(pks):
                for pk, *rest in connection.execute(query.where(items.c.id.in_(chunk))):
                    found[pk] = ItemSummary(*rest)
        return found

    def images_without_vectors(self, collection_id: int, encoder_id: str) -> list[tuple[str, str]]:
        """(item_id, uri) of the images that could be searched but for a vector by this encoder."""
        query = _images_without_vectors(collection_id, encoder_id, items.c.item_id, images.c.uri)
        with self.read() as connection:
            return [(item_id, uri) for item_id, uri in connection.execute(query.order_by(images.c.id))]

    def photos(self, collection_id: int) -> list[PhotoRecord]:
        """Every searchable photo with its item's attributes, in order of item_id."""
        query = (
            select(items.c.item_id, images.c.uri, images.c.sha256, images.c.mask_uri, items.c.attributes)
            .select_from(images.join(items))
            .where(items.c.collection_id == collection_id, images.c.status == "ok")
            .order_by(items.c.item_id, images.c.id)
        )
        with self.read() as connection:
            return [PhotoRecord(*row) for row in connection.execute(query)]

    # Rejects

    def replace_rejects(self, collection_id: int, source: str, found: Sequence[RejectRecord]) -> None:
        """The rows of a source that name no image we could store; those of its last reading are forgotten."""
        with self.write() as connection:
            same_source = (rejects.c.collection_id == collection_id) & (rejects.c.source == source)
            connection.execute(sa.delete(rejects).where(same_source))
            values = [
                {"collection_id": collection_id, "source": source, "place": record.place, "item_id": record.item_id,
                 "image": record.image, "reason": record.reason, "at": _now()}
                for record in found
            ]  # fmt: skip
            if values:
                connection.execute(sa.insert(rejects), values)

    def rejects(self, collection: str) -> list[RejectRecord]:
        """Rejected images and rejected source rows."""
        collection_id = self.collection_id(collection)
        of_images = (
            select(items.c.item_id, images.c.uri, images.c.uri, images.c.reason)
            .select_from(images.join(items))
            .where(items.c.collection_id == collection_id, images.c.status == "rejected")
            .order_by(images.c.id)
        )
        of_rows = (
            select(rejects.c.item_id, rejects.c.image, rejects.c.place, rejects.c.reason)
            .where(rejects.c.collection_id == collection_id)
            .order_by(rejects.c.id)
        )
        with self.read() as connection:
            rows = [*connection.execute(of_images), *connection.execute(of_rows)]
        return [RejectRecord(collection, *row) for row in rows]

    # Encoders and vectors

    def add_encoder(self, record: EncoderRecord) -> None:
        with self.write() as connection:
            known = connection.scalar(select(encoders.c.encoder_id).where(encoders.c.encoder_id == record.encoder_id))
            if known is None:
                values = {name: getattr(record, name) for name in EncoderRecord.__slots__}
                connection.execute(sa.insert(encoders).values(**values, created_at=_now()))

    def encoders(self) -> list[EncoderRecord]:
        query = select(*(encoders.c[name] for name in EncoderRecord.__slots__)).order_by(encoders.c.created_at)
        with self.read() as connection:
            return [EncoderRecord(*row) for row in connection.execute(query)]

    def vectors_of_items(self, encoder_id: str, pks: Iterable[int]) -> list[tuple[int, int, bytes]]:
        """(item key, image_id, float32 bytes) of these items' searchable images."""
        query = _select_vectors(encoder_id)
        with self.read() as connection:
            rows = [row for chunk in _chunks(pks) for row in connection.execute(query.where(items.c.id.in_(chunk)))]
        return [(pk, image_id, vector) for image_id, pk, _, vector in rows]

    def stored_photos(self, collection_id: int, encoder_id: str) -> list[StoredPhoto]:
        """Every searchable photo with its vector by one encoder, in order of image_id."""
        query = (
            select(items.c.id, items.c.item_id, items.c.created_at, images.c.uri, images.c.sha256, vectors.c.vector)
            .select_from(images.join(items).join(vectors, _current_vector(encoder_id)))
            .where(items.c.collection_id == collection_id, images.c.status == "ok")
            .order_by(images.c.id)
        )
        with self.read() as connection:
            rows = connection.execution_options(yield_per=10_000).execute(query)
            return [StoredPhoto(pk, item_id, _utc(at), *rest) for pk, item_id, at, *rest in rows]

    @contextmanager
    def vector_snapshot(
        self, collection_id: int, encoder_id: str
    ) -> Iterator[tuple[int, Iterator[Row[int, int, str, bytes]]]]:
        """The last change, and (image_id, item key, sha256, float32 bytes) in order of image_id, of one moment."""
        query = _select_vectors(encoder_id).where(items.c.collection_id == collection_id).order_by(images.c.id)
        with self.read() as connection:
            watermark = _last_change(connection, collection_id)
            yield watermark, iter(connection.execution_options(yield_per=10_000).execute(query))

    # Generations

    def search_state(self, collection: str) -> SearchState:
        last = select(func.max(changes.c.id)).where(changes.c.collection_id == collections.c.id)
        active = (generations.c.collection_id == collections.c.id) & (generations.c.status == "active")
        calibrated = (calibrations.c.collection_id == collections.c.id) & (
            calibrations.c.encoder_id == generations.c.encoder_id
        )
        query = (
            select(
                collections.c.id,
                generations.c.number,
                generations.c.encoder_id,
                func.coalesce(generations.c.watermark, 0),
                func.coalesce(last.scalar_subquery(), 0),
                calibrations.c.created_at,
            )
            .select_from(collections.outerjoin(generations, active).outerjoin(calibrations, calibrated))
            .where(collections.c.name == collection)
        )
        with self.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            self.collection_id(collection)  # raises, naming the collections there are
            raise NotFoundError(f"no collection {collection!r}")
        return SearchState(*row)

    def live_items(self, collection_id: int, after: int) -> set[int]:
        """Keys of the items changed live after a change; they may be gone by now."""
        query = select(changes.c.item_pk).where(
            changes.c.collection_id == collection_id, changes.c.id > after, changes.c.live
        )
        with self.read() as connection:
            return set(connection.scalars(query))

    def has_unindexed_changes(self, collection_id: int, watermark: int) -> bool:
        query = select(changes.c.id).where(
            changes.c.collection_id == collection_id,
            changes.c.id > watermark,
            changes.c.kind.in_(SEARCHABLE_KINDS),
        )
        with self.read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def items_indexed_since(self, collection_id: int, watermark: int) -> int:
        """How many items sources brought after a watermark: a generation of then does not show them."""
        query = select(func.count(changes.c.item_pk.distinct())).where(
            changes.c.collection_id == collection_id,
            changes.c.id > watermark,
            changes.c.kind == "added",
            ~changes.c.live,
        )
        with self.read() as connection:
            return int(connection.scalar(query) or 0)

    def next_generation_number(self, collection_id: int) -> int:
        query = select(func.max(generations.c.number)).where(generations.c.collection_id == collection_id)
        with self.read() as connection:
            return int(connection.scalar(query) or 0) + 1

    def add_generation(self, collection_id: int, record: GenerationRecord) -> None:
        """Record a built and verified generation, not yet active."""
        with self.write() as connection:
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

    def activate_generation(self, collection_id: int, number: int) -> None:
        """Make one generation the active one; the one that was is retired. One transaction."""
        with self.write() as connection:
            self._lock(connection, collection_id)
            self._activate(connection, collection_id, number)

    @staticmethod
    def _activate(connection: Connection, collection_id: int, number: int) -> None:
        of_collection = generations.c.collection_id == collection_id
        retire = of_collection & (generations.c.status == "active")
        connection.execute(sa.update(generations).where(retire).values(status="retired"))
        changed = connection.execute(
            sa.update(generations)
            .where(of_collection, generations.c.number == number, generations.c.status != "removed")
            .values(status="active", activated_at=_now())
        )
        if changed.rowcount != 1:
            raise NotFoundError(f"no generation {number} to activate")

    def activate_complete_generation(self, collection_id: int, number: int, encoder_id: str) -> bool:
        """As `activate_generation`, but only where every searchable image has a vector by the generation's encoder."""
        missing = _images_without_vectors(collection_id, encoder_id, images.c.id).limit(1)
        with self.write() as connection:
            self._lock(connection, collection_id)
            if connection.execute(missing).first() is not None:
                return False
            self._activate(connection, collection_id, number)
            return True

    def mark_generation_removed(self, collection_id: int, number: int) -> None:
        same = (generations.c.collection_id == collection_id) & (generations.c.number == number)
        with self.write() as connection:
            connection.execute(sa.update(generations).where(same).values(status="removed"))

    def generations(self, collection: str | None = None) -> list[GenerationRecord]:
        query = (
            select(
                collections.c.name,
                generations.c.number,
                generations.c.encoder_id,
                generations.c.status,
                generations.c.count,
                encoders.c.dim,
                encoders.c.metric,
                generations.c.factory,
                generations.c.recall_at_10,
                generations.c.watermark,
                generations.c.manifest_sha256,
                generations.c.created_at,
                generations.c.activated_at,
            )
            .select_from(generations.join(collections).join(encoders))
            .order_by(collections.c.name, generations.c.number)
        )
        if collection is not None:
            query = query.where(generations.c.collection_id == self.collection_id(collection))
        with self.read() as connection:
            rows = connection.execute(query).all()
        found = [GenerationRecord(*tuple[Any, ...](row)) for row in rows]
        return [
            replace(r, created_at=_utc(r.created_at), activated_at=_utc(r.activated_at) if r.activated_at else None)
            for r in found
        ]

    # Calibrations

    def put_calibration(self, collection_id: int, encoder_id: str, content: Mapping[str, Any]) -> None:
        """Store what is known of an encoder's scores in a collection, in place of what was."""
        same = (calibrations.c.collection_id == collection_id) & (calibrations.c.encoder_id == encoder_id)
        values = {"content": dict(content), "created_at": _now()}
        with self.write() as connection:
            self._lock(connection, collection_id)
            if connection.execute(sa.update(calibrations).where(same).values(values)).rowcount == 0:
                keys = {"collection_id": collection_id, "encoder_id": encoder_id}
                connection.execute(sa.insert(calibrations).values(**keys, **values))

    def calibration(self, collection_id: int, encoder_id: str) -> dict[str, Any] | None:
        same = (calibrations.c.collection_id == collection_id) & (calibrations.c.encoder_id == encoder_id)
        with self.read() as connection:
            content = connection.scalar(select(calibrations.c.content).where(same))
        return None if content is None else dict(content)

    def image_files(self, image_ids: Iterable[int]) -> dict[int, tuple[str, str | None]]:
        """URI and content sha256 of images."""
        query = select(images.c.id, images.c.uri, images.c.sha256)
        found: dict[int, tuple[str, str | None]] = {}
        with self.read() as connection:
            for chunk in _chunks(image_ids):
                for image_id, uri, sha256 in connection.execute(query.where(images.c.id.in_(chunk))):
                    found[image_id] = (uri, sha256)
        return found

    # Recent queries

    def add_recent_queries(
        self, collection_id: int, encoder_id: str, queries: Sequence[tuple[datetime, bytes]], *, keep: int
    ) -> None:
        """Store (when, float32 bytes) of queries, oldest first, and forget all but the newest `keep`."""
        same = (recent_queries.c.collection_id == collection_id) & (recent_queries.c.encoder_id == encoder_id)
        values = [
            {"collection_id": collection_id, "encoder_id": encoder_id, "vector": vector, "at": at}
            for at, vector in queries
        ]
        newest = select(recent_queries.c.id).where(same).order_by(recent_queries.c.id.desc())
        with self.write() as connection:
            connection.execute(sa.insert(recent_queries), values)
            oldest = connection.scalar(newest.offset(keep - 1).limit(1))
            if oldest is not None:
                connection.execute(sa.delete(recent_queries).where(same, recent_queries.c.id < oldest))

    def recent_queries(self, collection_id: int, encoder_id: str) -> list[tuple[datetime, bytes]]:
        """(when, float32 bytes) of the queries that are kept of one encoder, newest first."""
        same = (recent_queries.c.collection_id == collection_id) & (recent_queries.c.encoder_id == encoder_id)
        query = select(recent_queries.c.at, recent_queries.c.vector).where(same).order_by(recent_queries.c.id.desc())
        with self.read() as connection:
            return [(_utc(at), vector) for at, vector in connection.execute(query)]

    # Retrains

    def add_retrain(self, collection_id: int, plan: Mapping[str, Any]) -> int:
        """Record a retraining that begins; returns its number."""
        highest = select(func.max(retrains.c.number)).where(retrains.c.collection_id == collection_id)
        with self.write() as connection:
            self._lock(connection, collection_id)
            number = int(connection.scalar(highest) or 0) + 1
            values = {"collection_id": collection_id, "number": number, "status": "running", "plan": dict(plan)}
            connection.execute(sa.insert(retrains).values(**values, created_at=_now()))
        return number

    def decide_retrain(self, collection_id: int, number: int, decision: Mapping[str, Any]) -> None:
        """Store what was decided and on which evidence."""
        self._update_retrain(collection_id, number, {"decision": dict(decision)})

    def end_retrain(self, collection_id: int, number: int, status: RetrainStatus, generation: int | None) -> None:
        self._update_retrain(collection_id, number, {"status": status, "generation": generation, "ended_at": _now()})

    def _update_retrain(self, collection_id: int, number: int, values: Mapping[str, Any]) -> None:
        same = (retrains.c.collection_id == collection_id) & (retrains.c.number == number)
        with self.write() as connection:
            connection.execute(sa.update(retrains).where(same).values(values))

    def retrains(self, collection: str) -> list[RetrainRecord]:
        """A collection's retrainings, oldest first."""
        names = ("number", "status", "plan", "decision", "generation", "created_at", "ended_at")
        query = select(*(retrains.c[name] for name in names)).order_by(retrains.c.number)
        query = query.where(retrains.c.collection_id == self.collection_id(collection))
        with self.read() as connection:
            found = [RetrainRecord(collection, *tuple[Any, ...](row)) for row in connection.execute(query)]
        return [
            replace(r, created_at=_utc(r.created_at), ended_at=_utc(r.ended_at) if r.ended_at else None) for r in found
        ]

    # API keys

    def add_api_key(self, name: str, scope: str, key_hash: str) -> None:
        with self.write() as connection:
            if connection.scalar(select(api_keys.c.id).where(api_keys.c.name == name)) is not None:
                raise InvalidRequestError("name", f"an API key named {name!r} exists already; choose another name")
            connection.execute(sa.insert(api_keys).values(name=name, scope=scope, key_hash=key_hash, created_at=_now()))

    def find_api_key(self, key_hash: str) -> ApiKeyRecord | None:
        found = self._api_keys(api_keys.c.key_hash == key_hash, api_keys.c.revoked_at.is_(None))
        return found[0] if found else None

    def has_api_keys(self) -> bool:
        """Whether a key was ever made: revoking the last one must not open the API."""
        with self.read() as connection:
            return connection.execute(select(api_keys.c.id).limit(1)).first() is not None

    def revoke_api_key(self, name: str) -> None:
        with self.write() as connection:
            same = (api_keys.c.name == name) & api_keys.c.revoked_at.is_(None)
            if connection.execute(sa.update(api_keys).where(same).values(revoked_at=_now())).rowcount != 1:
                raise NotFoundError(f"no API key named {name!r} that could be revoked")

    def api_keys(self) -> list[ApiKeyRecord]:
        return self._api_keys()

    def _api_keys(self, *where: sa.ColumnElement[bool]) -> list[ApiKeyRecord]:
        query = select(api_keys.c.name, api_keys.c.scope, api_keys.c.created_at, api_keys.c.revoked_at)
        with self.read() as connection:
            rows = connection.execute(query.where(*where).order_by(api_keys.c.name)).all()
        return [ApiKeyRecord(n, s, _utc(made), _utc(gone) if gone else None) for n, s, made, gone in rows]

    def _lock(self, connection: Connection, collection_id: int) -> None:
        """Writers of a collection take turns; SQLite has done so at BEGIN IMMEDIATE already."""
        connection.execute(select(collections.c.id).where(collections.c.id == collection_id).with_for_update())


def _now() -> datetime:
    return datetime.now(UTC)


def _utc(moment: datetime) -> datetime:
    """SQLite returns what was stored in UTC without saying so."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _chunks(values: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _current_vector(encoder_id: str) -> sa.ColumnElement[bool]:
    """The vector of an image's present content by one encoder."""
    return (
        (vectors.c.image_id == images.c.id)
        & (vectors.c.sha256 == images.c.sha256)
        & (vectors.c.encoder_id == encoder_id)
    )


def _images_without_vectors(collection_id: int, encoder_id: str, *columns: sa.Column[Any]) -> Select[Any]:
    return (
        select(*columns)
        .select_from(images.join(items).outerjoin(vectors, _current_vector(encoder_id)))
        .where(items.c.collection_id == collection_id, images.c.status == "ok", vectors.c.image_id.is_(None))
    )


def _select_vectors(encoder_id: str) -> Select[int, int, str, bytes]:
    return (
        select(images.c.id, items.c.id, images.c.sha256, vectors.c.vector)
        .select_from(images.join(items).join(vectors, _current_vector(encoder_id)))
        .where(images.c.status == "ok")
    )


def _select_item(collection_id: int, item_id: str) -> Select[int]:
    return select(items.c.id).where(items.c.collection_id == collection_id, items.c.item_id == item_id)


def _select_image_records() -> Select[Any]:
    return select(*(images.c["id" if name == "image_id" else name] for name in ImageRecord.__slots__))


def _active_number(connection: Connection, collection_id: int) -> int | None:
    return connection.scalar(
        select(generations.c.number).where(
            generations.c.collection_id == collection_id, generations.c.status == "active"
        )
    )


def _last_change(connection: Connection, collection_id: int) -> int:
    return int(connection.scalar(select(func.max(changes.c.id)).where(changes.c.collection_id == collection_id)) or 0)


def _known_writes(connection: Connection, collection_id: int, writes: Sequence[ImageWrite]) -> list[ImageWrite]:
    """Those whose item still has their image."""
    query = select(items.c.item_id, images.c.uri).select_from(images.join(items))
    query = query.where(items.c.collection_id == collection_id)
    known: set[tuple[str, str]] = set()
    for chunk in _chunks({write.item_id: None for write in writes}):
        known.update((item_id, uri) for item_id, uri in connection.execute(query.where(items.c.item_id.in_(chunk))))
    return [write for write in writes if (write.item_id, write.uri) in known]


def _upsert_items(connection: Connection, collection_id: int, writes: Sequence[ImageWrite]) -> dict[str, int]:
    """Insert or describe the items of a batch; item_id -> key."""
    describing = {write.item_id: write for write in reversed(writes) if write.describes}
    pks: dict[str, int] = {}
    changed: list[dict[str, Any]] = []
    query = select(items.c.item_id, items.c.id, items.c.title, items.c.attributes)
    query = query.where(items.c.collection_id == collection_id)
    for chunk in _chunks({write.item_id: None for write in writes}):
        for item_id, pk, title, attributes in connection.execute(query.where(items.c.item_id.in_(chunk))):
            pks[item_id] = pk
            new = describing.get(item_id)
            if new is not None and (new.title, new.attributes) != (title, attributes):
                changed.append({"pk": pk, "new_title": new.title, "new_attributes": new.attributes})
    if changed:
        values = {
            "title": sa.bindparam("new_title"),
            "attributes": sa.bindparam("new_attributes", type_=items.c.attributes.type),
            "updated_at": _now(),
        }
        connection.execute(sa.update(items).where(items.c.id == sa.bindparam("pk")).values(values), changed)
    first = {write.item_id: write for write in reversed(writes)}
    now = _now()
    missing = [
        {"collection_id": collection_id, "item_id": item_id, "title": first[item_id].title,
         "attributes": first[item_id].attributes, "created_at": now, "updated_at": now}
        for item_id in dict.fromkeys(write.item_id for write in writes)
        if item_id not in pks
    ]  # fmt: skip
    if missing:
        made = connection.execute(sa.insert(items).returning(items.c.item_id, items.c.id), missing)
        pks.update({item_id: pk for item_id, pk in made})
    return pks


IMAGE_FIELDS = ("mask_uri", "sha256", "size", "mtime_ns", "width", "height", "status", "reason")


def _upsert_images(
    connection: Connection, pks: Mapping[str, int], writes: Sequence[ImageWrite]
) -> dict[tuple[str, str], int]:
    """Insert or update the images of a batch; (item_id, uri) -> image_id. A None never overwrites a known fact."""
    by_pk = {pk: item_id for item_id, pk in pks.items()}
    ids: dict[tuple[str, str], int] = {}
    query = select(images.c.item_pk, images.c.uri, images.c.id)
    for chunk in _chunks(by_pk):
        for pk, uri, image_id in connection.execute(query.where(images.c.item_pk.in_(chunk))):
            ids[by_pk[pk], uri] = image_id
    known = [write for write in writes if (write.item_id, write.uri) in ids]
    if known:
        fresh: dict[str, Any] = {
            name: func.coalesce(sa.bindparam(f"new_{name}", type_=images.c[name].type), images.c[name])
            for name in IMAGE_FIELDS
        }
        fresh["reason"] = sa.bindparam("new_reason", type_=images.c.reason.type)
        values = [
            {"pk": ids[write.item_id, write.uri], **{f"new_{name}": getattr(write, name) for name in IMAGE_FIELDS}}
            for write in known
        ]
        connection.execute(sa.update(images).where(images.c.id == sa.bindparam("pk")).values(fresh), values)
    missing = [
        {"item_pk": pks[write.item_id], "uri": write.uri, **{name: getattr(write, name) for name in IMAGE_FIELDS}}
        for write in writes
        if (write.item_id, write.uri) not in ids
    ]
    if missing:
        made = connection.execute(sa.insert(images).returning(images.c.item_pk, images.c.uri, images.c.id), missing)
        ids.update({(by_pk[pk], uri): image_id for pk, uri, image_id in made})
    return ids


def _write_vectors(
    connection: Connection, encoder_id: str, image_ids: Mapping[tuple[str, str], int], writes: Sequence[ImageWrite]
) -> None:
    """Store this encoder's vectors, in place of its vectors of the images' earlier content."""
    embedded = [(image_ids[write.item_id, write.uri], write) for write in writes if write.vector is not None]
    for chunk in _chunks([image_id for image_id, _ in embedded]):
        old = vectors.c.image_id.in_(chunk) & (vectors.c.encoder_id == encoder_id)
        connection.execute(sa.delete(vectors).where(old))
    if embedded:
        values = [
            {"image_id": image_id, "sha256": write.sha256, "encoder_id": encoder_id, "vector": write.vector}
            for image_id, write in embedded
        ]
        connection.execute(sa.insert(vectors), values)


def _log(connection: Connection, collection_id: int, logged: Sequence[tuple[str, int, str]], *, live: bool) -> None:
    at = _now()
    values = [
        {"collection_id": collection_id, "at": at, "kind": kind, "item_pk": pk, "item_id": item_id, "live": live}
        for kind, pk, item_id in logged
    ]
    if values:
        connection.execute(sa.insert(changes), values)
