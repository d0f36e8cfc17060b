"""The catalogue of a home: its SQL database, grouped by noun.

Every write is one transaction. Every write that logs changes first locks its collection's row, so ids in the change log
rise in commit order and a generation includes every change up to its watermark.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, select

from indexer.catalogue.attributes import Attributes
from indexer.catalogue.calibrations import Calibrations
from indexer.catalogue.changes import Changes
from indexer.catalogue.collections import Collections
from indexer.catalogue.encoders import Encoders
from indexer.catalogue.engine import Database
from indexer.catalogue.generations import Generations
from indexer.catalogue.images import Images
from indexer.catalogue.items import Items
from indexer.catalogue.keys import ApiKeys
from indexer.catalogue.queries import RecentQueries
from indexer.catalogue.records import ActiveState, GenerationRecord, SearchState
from indexer.catalogue.rejects import Rejects
from indexer.catalogue.retrains import Retrains
from indexer.catalogue.schema import calibrations, changes, collections, generations
from indexer.catalogue.tombstones import Tombstones
from indexer.catalogue.vector_tables import VectorTables
from indexer.catalogue.vectors import Vectors
from indexer.errors import NotFoundError


class Catalogue:
    """Queries grouped by noun, and the state of a collection that every search reads."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.collections = Collections(database)
        self.attributes = Attributes(database)
        self.items = Items(database)
        self.tombstones = Tombstones(database)
        self.images = Images(database)
        self.rejects = Rejects(database)
        self.encoders = Encoders(database)
        self.vectors = Vectors(database)
        self.vector_tables = VectorTables(database)
        self.generations = Generations(database)
        self.changes = Changes(database)
        self.calibrations = Calibrations(database)
        self.queries = RecentQueries(database)
        self.retrains = Retrains(database)
        self.keys = ApiKeys(database)

    def close(self) -> None:
        self.database.engine.dispose()

    def read(self) -> AbstractContextManager[Connection]:
        """See `Database.read`."""
        return self.database.read()

    def write(self) -> AbstractContextManager[Connection]:
        """See `Database.write`."""
        return self.database.write()

    @contextmanager
    def snapshot(self, path: Path) -> Iterator[Catalogue]:
        """Copy the catalogue, which must be SQLite, to a file, and open the copy."""
        path.unlink(missing_ok=True)
        self.database.copy_to(path)
        copied = Catalogue(Database.open(f"sqlite:///{path}"))
        try:
            yield copied
        finally:
            copied.close()

    def ensure_collection(self, name: str) -> int:
        """See `Collections.ensure`."""
        return self.collections.ensure(name)

    def collection_id(self, name: str) -> int:
        """See `Collections.id_of`."""
        return self.collections.id_of(name)

    def search_state(self, collection: str) -> SearchState:
        """The active generation and the latest changes of a collection; `NotFoundError` if it does not exist."""
        with self.read() as connection:
            row = connection.execute(_SEARCH_STATE, {"collection": collection}).first()
        if row is None:
            self.collections.id_of(collection)  # raises, and names the collections that exist
            raise NotFoundError(f"no collection {collection!r}")
        return SearchState(*row)

    def active_state(self, collection: str) -> ActiveState:
        """The search state of a collection that has an active generation.

        Raises:
            NotFoundError: the collection does not exist, or has no active generation.
        """
        state = self.search_state(collection)
        if state.generation is None or state.encoder_id is None:
            raise NotFoundError(f"collection {collection!r} has no index yet; run `nitamono index SOURCE` first")
        return ActiveState(
            state.collection_id,
            state.generation,
            state.encoder_id,
            state.watermark,
            state.last_change,
            state.calibrated_at,
        )

    def active_generations(self) -> list[tuple[GenerationRecord, int]]:
        """The active generation of each collection, with the number of items that live writes changed since."""
        active = [record for record in self.generations.all() if record.status == "active"]
        return [
            (record, len(self.changes.live_items(self.collection_id(record.collection), record.watermark)))
            for record in active
        ]


def _select_search_state() -> Select[Any]:
    """Every search runs this statement, so it is built once."""
    last = select(func.max(changes.c.id)).where(changes.c.collection_id == collections.c.id)
    active = (generations.c.collection_id == collections.c.id) & (generations.c.status == "active")
    calibrated = (calibrations.c.collection_id == collections.c.id) & (
        calibrations.c.encoder_id == generations.c.encoder_id
    )
    return (
        select(
            collections.c.id,
            generations.c.number,
            generations.c.encoder_id,
            func.coalesce(generations.c.watermark, 0),
            func.coalesce(last.scalar_subquery(), 0),
            calibrations.c.created_at,
        )
        .select_from(collections.outerjoin(generations, active).outerjoin(calibrations, calibrated))
        .where(collections.c.name == bindparam("collection"))
    )


_SEARCH_STATE = _select_search_state()
