"""Limits of the server."""

from __future__ import annotations

from pydantic import BaseModel

from indexer.ingest.items import MAX_IMAGES
from indexer.search.searcher import MAX_DEPTH, MAX_K


class Limits(BaseModel):
    """The server's limits, so that a client can check a request before it uploads."""

    max_upload_bytes: int
    max_pixels: int
    max_decode_bytes: int
    max_k: int = MAX_K
    max_depth: int = MAX_DEPTH
    max_images_per_item: int = MAX_IMAGES
