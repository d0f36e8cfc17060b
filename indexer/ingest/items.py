"""Live reads and writes of single items; a write is durable and searchable before the call returns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from indexer.catalogue.home import Home
from indexer.catalogue.records import OVER_HTTP, ImageWrite, ItemRecord
from indexer.errors import DiskFullError, IndexerError, InvalidRequestError, MismatchError
from indexer.ingest.attributes import attributes_fault
from indexer.search.photos import other_photos
from training.data.texts import id_fault, text_fault
from training.embedder import prepare

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from indexer.search.searcher import Searcher

MAX_IMAGES = 16
ATTEMPTS = 5  # of a write that meets the activation of another generation


def put_item(
    home: Home,
    searcher: Searcher,
    collection: str,
    item_id: str,
    *,
    title: str | None,
    attributes: Mapping[str, str],
    images: Sequence[bytes],
) -> tuple[ItemRecord, bool]:
    """Store an item with exactly these images, in place of its previous ones; True if it is new.

    Raises:
        InvalidRequestError: no image, too many images, a text that a catalogue cannot hold, or attributes that are not
            text, too many or too long, see `indexer.ingest.attributes`.
        ImageError: an image cannot be decoded; nothing has been stored.
        NotFoundError: the collection does not exist or has no active generation.
        DiskFullError, ReadOnlyError: nothing has been stored.
    """
    _check_item(item_id, title, attributes, images)
    for _ in range(ATTEMPTS):
        state = home.catalogue.active_state(collection)
        embedded = [_embed(searcher, state.encoder_id, data) for data in dict.fromkeys(images)]
        stored: list[str] = []
        try:
            for photo in embedded:
                stored.append(home.add_blob(photo.data))
            writes = [
                _write(home, item_id, title, attributes, uri, photo)
                for uri, photo in zip(stored, embedded, strict=True)
            ]
            created = home.catalogue.items.replace(
                state.collection_id, state.encoder_id, writes, generation=state.generation
            )
        except DiskFullError:
            with suppress(IndexerError):
                home.remove_unused_blobs(stored)
            raise
        if created is not None:
            for data in images:  # `clean` may have removed a photo that nothing referred to until now
                home.add_blob(data)
            return home.catalogue.items.get(collection, item_id), created
    raise MismatchError(
        f"collection {collection!r} activated another generation {ATTEMPTS} times meanwhile; send the item again"
    )


@dataclass(frozen=True)
class ListedItem:
    """An item, the number of its photos, how many of their files are gone, and the sources that they belong to."""

    item_id: str
    photos: int
    gone: int
    sources: list[str]


def get_item(home: Home, collection: str, item_id: str) -> ItemRecord:
    """An item; the images whose file exists come first."""
    record = home.catalogue.items.get(collection, item_id)
    return replace(record, images=sorted(record.images, key=lambda image: not home.has_file(image.uri)))


def delete_item(home: Home, collection: str, item_id: str) -> None:
    home.catalogue.items.delete(home.catalogue.collection_id(collection), [item_id])


def list_items(home: Home, collection: str, *, gone: bool = False) -> list[ListedItem]:
    """The items of a collection in order of item_id.

    Args:
        gone: only those none of whose photos exists.
    """
    listed: list[ListedItem] = []
    stored = home.catalogue.images.stored(home.catalogue.collection_id(collection))
    for item_id, images in groupby(stored, key=lambda image: image.item_id):
        of_item = list(images)
        missing = sum(not home.has_file(image.uri) for image in of_item)
        sources = sorted({image.source for image in of_item if image.source is not None})
        if not gone or missing == len(of_item):
            listed.append(ListedItem(item_id, len(of_item), missing, sources))
    return listed


def remove_items(home: Home, collection: str, item_ids: Sequence[str], *, dry_run: bool = False) -> None:
    """Delete items, all or none, as over HTTP.

    Raises:
        NotFoundError: one of the items does not exist.
    """
    home.catalogue.items.delete(home.catalogue.collection_id(collection), item_ids, dry_run=dry_run)


def image_file(home: Home, collection: str, image_id: int) -> Path:
    """The path of an image's file, or of another image of the item if that file is gone.

    Raises:
        NotFoundError: the image does not exist.
    """
    image = home.catalogue.images.get(collection, image_id)
    if not home.has_file(image.uri):
        shown = other_photos(home, [image_id]).get(image_id, image_id)
        image = home.catalogue.images.get(collection, shown)
    return home.uri_path(image.uri)


def _check_item(item_id: str, title: str | None, attributes: Mapping[str, str], images: Sequence[bytes]) -> None:
    if fault := id_fault(item_id):
        raise InvalidRequestError("item_id", f"item_id {fault}")
    if fault := text_fault(title or "", lines=True):
        raise InvalidRequestError("title", f"title {fault}")
    if not 1 <= len(images) <= MAX_IMAGES:
        raise InvalidRequestError("image", f"an item needs 1 to {MAX_IMAGES} images; {len(images)} were given")
    for name, value in attributes.items():
        if not isinstance(value, str):
            raise InvalidRequestError("attributes", f"attribute {name!r} must be text, not {type(value).__name__}")
        if fault := text_fault(name) or text_fault(value, lines=True):
            raise InvalidRequestError("attributes", f"attribute {name!r} {fault}")
    if (fault := attributes_fault(attributes)) is not None:
        raise InvalidRequestError("attributes", fault)


class _Photo(NamedTuple):
    """An embedded photo; `vector` is `(dim,)`."""

    data: bytes
    width: int
    height: int
    vector: NDArray[np.float32]


def _embed(searcher: Searcher, encoder_id: str, data: bytes) -> _Photo:
    embedder = searcher.embedder(encoder_id)
    with searcher.decoded(data, at_least=embedder.described.preprocessing.least_side) as image:
        width, height = image.width, image.height
        pixels = prepare(embedder, image)
        del image  # its memory is free again after the block
    return _Photo(data, width, height, embedder.embed(pixels)[0])


def _write(
    home: Home, item_id: str, title: str | None, attributes: Mapping[str, str], uri: str, photo: _Photo
) -> ImageWrite:
    try:
        modified = home.uri_path(uri).stat().st_mtime_ns
    except FileNotFoundError:  # `clean` has just removed it; `put_item` stores it again
        modified = time.time_ns()
    return ImageWrite(
        item_id=item_id,
        uri=uri,
        kind="updated",
        status="ok",
        title=title,
        attributes=dict(attributes),
        sha256=uri.partition(":")[2],
        size=len(photo.data),
        mtime_ns=modified,
        width=photo.width,
        height=photo.height,
        source=OVER_HTTP,
        vector=photo.vector,
    )
