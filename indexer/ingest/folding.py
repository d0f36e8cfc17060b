"""Folding live changes into a new generation: what was written over HTTP since the active one was built."""

from __future__ import annotations

from indexer.catalogue.home import Home
from indexer.ingest.encoders import sound_encoder
from indexer.ingest.ingest import bring_generation_up_to_date


def fold(home: Home, collection: str) -> int:
    """Build and activate a generation that includes every change, with the active generation's encoder.

    Returns:
        The active generation, which is the same as before if it includes every change and verifies.

    Raises:
        NotFoundError: the collection does not exist, or has no active generation.
        BusyError: another process is indexing this collection.
    """
    with home.lock(f"collection-{collection}"):
        encoder = sound_encoder(home, home.catalogue.active_state(collection).encoder_id)
        return bring_generation_up_to_date(home, collection, encoder, home.catalogue.search_state(collection))
