"""Activation of generations without losing items that were written meanwhile.

A generation shows only images with a vector by its encoder. Items that were uploaded while it was built, or while
another generation was active, may have vectors by the other encoder only. They are embedded before the switch, and the
transaction that activates the generation commits only if no vector is missing.
"""

from __future__ import annotations

from indexer.catalogue.home import Home
from indexer.catalogue.records import GenerationRecord
from indexer.errors import BusyError, CorruptError, NotFoundError
from indexer.generations.store import find_generation, kept_generations, verify
from indexer.ingest.ingest import embed_missing

ROUNDS = 50  # each embeds what was uploaded during the previous one


def activate(home: Home, collection: str, number: int) -> GenerationRecord:
    """Verify a generation and activate it.

    Raises:
        NotFoundError: the generation does not exist, or its directory has been removed.
        CorruptError: verification fails.
    """
    record = find_generation(home, collection, number)
    if record.status == "removed":
        raise NotFoundError(f"generation {number} of {collection!r} was removed; {kept_generations(home, collection)}")
    if problems := verify(home, collection, number, optional=False):
        raise CorruptError(f"generation {number} of {collection!r} does not verify: {problems[0]}")
    put_into_service(home, collection, record)
    return find_generation(home, collection, number)


def rollback(home: Home, collection: str) -> GenerationRecord:
    """Activate the earlier generation that was active most recently."""
    records = home.catalogue.generations.all(collection)
    active = next((record for record in records if record.status == "active"), None)
    earlier = [
        (record.activated_at, record.number)
        for record in records
        if record.status == "retired" and record.activated_at and active and record.number < active.number
    ]
    if not earlier:
        raise NotFoundError(f"collection {collection!r} has no earlier generation to roll back to")
    return activate(home, collection, max(earlier)[1])


def put_into_service(home: Home, collection: str, record: GenerationRecord) -> None:
    """Activate a verified generation as soon as every searchable image has a vector by its encoder.

    Raises:
        BusyError: images are uploaded faster than they can be embedded.
    """
    collection_id = home.catalogue.collection_id(collection)
    for _ in range(ROUNDS):
        if home.catalogue.generations.activate_complete(collection_id, record.number, record.encoder_id):
            return
        embed_missing(home, collection, home.encoder(record.encoder_id), live=True)
    raise BusyError(f"collection {collection!r} receives photos faster than they are embedded; try again")
