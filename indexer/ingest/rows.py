"""Rows of a source beside what the catalogue has of them, and what is written of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.catalogue.records import ChangeKind, ImageState, ImageWrite, StoredImage
from indexer.ingest.embed import Embedded
from training.data.reader import Failed, Request
from training.data.sources import Entry, SourceImage, SourceProblem


@dataclass(frozen=True)
class Reading:
    """What a source lists, read once.

    Args:
        source: its absolute path, which images of the catalogue name as their source.
    """

    source: str
    images: Sequence[SourceImage]
    problems: Sequence[SourceProblem]

    @classmethod
    def of(cls, source: Path, entries: Sequence[Entry]) -> Reading:
        images = [entry for entry in entries if isinstance(entry, SourceImage)]
        return cls(str(source.absolute()), images, [entry for entry in entries if isinstance(entry, SourceProblem)])

    @property
    def is_folder(self) -> bool:
        """Whether the id of an item is the path of its photo."""
        return os.path.isdir(self.source)


@dataclass(frozen=True, slots=True)
class Row:
    """A source row with the stored state of its image; `describes` marks the first row of an item.

    Args:
        moved: SHA-256 of the stored images that this one may be, at an earlier place.
    """

    entry: SourceImage
    state: ImageState | None
    describes: bool
    moved: frozenset[str] = frozenset()

    @property
    def has_new_description(self) -> bool:
        state = self.state
        return state is not None and (
            (self.describes and (state.title, state.attributes) != (self.entry.title, self.entry.attributes))
            or (self.entry.mask is not None and state.mask_uri != self.entry.mask_stored_as)
        )

    def is_untouched(self) -> bool:
        """Whether the file still has the stored size and modification time and needs no work."""
        state = self.state
        # Rejected images are read again: a limit may have been raised, a package installed, a missing file be back.
        if state is None or state.size is None or state.status != "ok" or not state.has_vector:
            return False
        try:
            stat = os.stat(self.entry.file)
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (state.size, state.mtime_ns)

    def request(self) -> Request:
        """What to read: contents that have a vector are not decoded again."""
        state = self.state
        known = {state.sha256} if state is not None and state.has_vector and state.sha256 else self.moved
        return Request(self.entry.path, frozenset(known))

    def description(self, source: str) -> ImageWrite:
        """A write of the item's title and attributes, and of the image's source, only."""
        return ImageWrite(
            self.entry.item_id,
            self.entry.stored_as,
            "described" if self.has_new_description else None,
            "ok",
            self.entry.title,
            self.entry.attributes,
            self.describes,
            self.entry.mask_stored_as,
            source=source,
        )

    def write(
        self, embedded: Embedded, *, kind: ChangeKind | None, source: str, moved_from: StoredImage | None = None
    ) -> ImageWrite:
        """A write of the whole row."""
        entry = self.entry
        return write_of(
            entry.item_id,
            entry.stored_as,
            embedded,
            kind=kind,
            title=entry.title,
            attributes=entry.attributes,
            describes=self.describes,
            mask_uri=entry.mask_stored_as,
            source=source,
            moved_from=moved_from,
        )


def write_of(
    item_id: str,
    uri: str,
    embedded: Embedded,
    *,
    kind: ChangeKind | None,
    describes: bool = False,
    title: str | None = None,
    attributes: dict[str, str] | None = None,
    mask_uri: str | None = None,
    source: str | None = None,
    moved_from: StoredImage | None = None,
) -> ImageWrite:
    """A write of an image that was read."""
    outcome = embedded.outcome
    loaded = None if isinstance(outcome, Failed) else outcome
    return ImageWrite(
        item_id=item_id,
        uri=uri,
        kind=kind,
        status="rejected" if loaded is None else "ok",
        title=title,
        attributes=attributes or {},
        describes=describes,
        mask_uri=mask_uri,
        sha256=loaded.sha256 if loaded else None,
        size=outcome.size,
        mtime_ns=outcome.mtime_ns,
        width=loaded.width or None if loaded else None,
        height=loaded.height or None if loaded else None,
        reason=outcome.reason if isinstance(outcome, Failed) else None,
        source=source,
        moved_from=moved_from,
        vector=embedded.vector,
    )
