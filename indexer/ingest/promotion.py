"""Putting a generation into service without losing what was written meanwhile.

A generation shows what its encoder has vectors of. While one was built, or another was in service, items may have been
uploaded whose photos have vectors by the other encoder alone; they get the generation's own before it takes over, and
the transaction that puts it into service goes through only where none is missing.
"""

from __future__ import annotations

from indexer.catalogue.home import Home
from indexer.catalogue.records import GenerationRecord
from indexer.errors import BusyError, CorruptError, NotFoundError
from indexer.generations.store import find_generation, kept_generations, verify
from indexer.ingest.ingest import embed_missing

ROUNDS = 50  # of embedding what was uploaded while the round before embedded


def activate(home: Home, collection: str, number: int) -> GenerationRecord:
    """Put a kept generation into service, after verifying it.

    Raises:
        NotFoundError: there is no such generation, or its directory has been removed.
        CorruptError: it does not verify.
    """
    record = find_generation(home, collection, number)
    if record.status == "removed":
        raise NotFoundError(f"generation {number} of {collection!r} was removed; {kept_generations(home, collection)}")
    if problems := verify(home, collection, number):
        raise CorruptError(f"generation {number} of {collection!r} does not verify: {problems[0]}")
    put_into_service(home, collection, record)
    return find_generation(home, collection, number)


def rollback(home: Home, collection: str) -> GenerationRecord:
    """Activate the generation that was in service before the present one."""
    records = home.catalogue.generations.all(collection)
    active = next((record for record in records if record.status == "active"), None)
    earlier = [r for r in records if r.status == "retired" and r.activated_at and active and r.number < active.number]
    if not earlier:
        raise NotFoundError(f"collection {collection!r} has no earlier generation to roll back to")
    return activate(home, collection, max(earlier, key=lambda record: record.number).number)


def put_into_service(home: Home, collection: str, record: GenerationRecord) -> None:
    """Activate a verified generation once every searchable image has a vector by its encoder.

    Raises:
        BusyError: images are uploaded faster than they can be embedded.
    """
    collection_id = home.catalogue.collection_id(collection)
    for _ in range(ROUNDS):
        if home.catalogue.generations.activate_complete(collection_id, record.number, record.encoder_id):
            return
        embed_missing(home, collection, home.encoder(record.encoder_id), live=True)
    raise BusyError(f"collection {collection!r} is being written faster than its photos are embedded; try again")
