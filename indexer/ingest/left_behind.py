"""Stored images that a source does not list: those whose photo moved, and those that can be removed.

A photo has moved if the source lists another file with the same content (SHA-256), for the same item, and

- the stored image belongs to this source, or its file is gone; or
- the source is a folder, whose item ids are paths: then an item of this source whose files are gone may also come back
  under another id.

Its image keeps its id and vector, and its item keeps its key.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from indexer.catalogue.home import Home
from indexer.catalogue.records import OVER_HTTP, StoredImage
from indexer.errors import PruneError
from indexer.ingest.rows import Reading
from training.data.sources import SourceImage
from training.data.texts import shown
from training.files import sha256_of

EXAMPLES = 3


@dataclass
class LeftBehind:
    """The stored images of a collection that a reading of a source does not list."""

    home: Home
    reading: Reading
    images: dict[int, StoredImage] = field(default_factory=dict)  # by image_id
    _of_item: dict[str, list[StoredImage]] = field(default_factory=lambda: defaultdict(list))
    _renamed: dict[int, list[StoredImage]] = field(default_factory=lambda: defaultdict(list))  # by size in bytes

    @classmethod
    def of(cls, home: Home, collection_id: int, reading: Reading) -> LeftBehind:
        found = cls(home, reading)
        listed = {(image.item_id, image.stored_as) for image in reading.images}
        for image in home.catalogue.images.stored(collection_id):
            if (image.item_id, image.uri) not in listed:
                found.images[image.image_id] = image
                found._of_item[image.item_id].append(image)
        if reading.is_folder:
            found._find_renamed({item_id for item_id, _ in listed})
        return found

    def _find_renamed(self, listed: set[str]) -> None:
        own = (self.reading.source, None)
        problems = self._problems
        for item_id, images in self._of_item.items():
            if item_id in listed or shown(item_id) in problems:
                continue
            if all(image.source in own and self._is_gone(image) for image in images):
                for image in images:
                    self._renamed[image.size or 0].append(image)

    @property
    def _problems(self) -> set[str]:
        """Ids, as `shown`, of items with a row that cannot be read."""
        return {problem.item_id for problem in self.reading.problems if problem.item_id is not None}

    def _is_gone(self, image: StoredImage) -> bool:
        return not self.home.has_file(image.uri)

    def _candidates(self, entry: SourceImage) -> list[StoredImage]:
        if entry.item_id in self._of_item:
            of_item = self._of_item[entry.item_id]
            found = [image for image in of_item if image.source == self.reading.source or self._is_gone(image)]
        elif self._renamed:
            found = self._renamed.get(_size(entry.path), [])
        else:
            return []
        found = [image for image in found if image.image_id in self.images and image.source != OVER_HTTP]
        return sorted(found, key=lambda image: os.path.basename(image.uri) != entry.path.name)

    def contents(self, entry: SourceImage) -> frozenset[str]:
        """SHA-256 of the images that a file of the source may be."""
        return frozenset(image.sha256 for image in self._candidates(entry) if image.sha256 is not None)

    def claim(self, entry: SourceImage, sha256: str) -> StoredImage | None:
        """The image that moved to a file of the source with this content; it is no longer left behind."""
        for image in self._candidates(entry):
            if image.sha256 == sha256:
                return self.images.pop(image.image_id)
        return None

    def claim_all(self, known: set[tuple[str, str]]) -> None:
        """Claim every image that has moved, by reading the files of the source that are not `known` (item_id, URI)."""
        for entry in self.reading.images:
            if (entry.item_id, entry.stored_as) not in known and self.contents(entry):
                try:
                    self.claim(entry, sha256_of(entry.path))
                except OSError:
                    continue  # it will be rejected when it is indexed

    def gone(self) -> list[StoredImage]:
        """The searchable images of this source, of none, or of a source that is gone, whose file does not exist.

        The files of other sources are not looked for: there may be many, on a slow disk.
        """
        sources = {image.source for image in self.images.values()} - {OVER_HTTP}
        looked_for = {s for s in sources if s is None or s == self.reading.source or not os.path.lexists(s)}
        return [
            image
            for image in self.images.values()
            if image.status == "ok" and image.source in looked_for and self._is_gone(image)
        ]

    def unlisted(self) -> list[StoredImage]:
        """The images that the source no longer has.

        These belong to the source, or they belong to none, are gone, and are of an item of the source. Images of items
        with a row that cannot be read are left out.
        """
        problems = self._problems
        listed = {image.item_id for image in self.reading.images}
        return [
            image
            for image in self.images.values()
            if (image.source == self.reading.source and shown(image.item_id) not in problems)
            or (image.source is None and image.item_id in listed and self._is_gone(image))
        ]


def check_prunable(reading: Reading) -> None:
    """Raise `PruneError` if a source may have more items than its reading shows."""
    if not reading.images:
        raise PruneError(
            f"{reading.source}: lists no image, like a disk that is not mounted; nothing was removed. Use "
            "`nitamono items remove` to remove all items of a source"
        )
    for problem in reading.problems:
        if problem.hides:
            raise PruneError(
                f"{problem.where}: {problem.reason}; what it holds is unknown, so nothing was removed. Correct it, or "
                "index without --prune"
            )


def share_fault(left: LeftBehind, collection_id: int, unlisted: list[StoredImage], limit: float) -> str | None:
    """Why these images cannot be removed: they are more than a share of their source's; None if they can."""
    reading = left.reading
    removed = sum(image.source == reading.source for image in unlisted)
    total = left.home.catalogue.images.of_source(collection_id, reading.source)
    if removed <= limit * total:
        return None
    return (
        f"{reading.source}: {removed} of its {total} stored images are no longer listed, more than the limit of "
        f"{limit:.0%}; nothing was removed. If that is right, use --prune-limit {ceil(100 * removed / total) / 100:.2f}"
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
