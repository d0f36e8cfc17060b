"""`nitamono index`: bring a collection up to date with a source and activate a new generation.

Each batch is one transaction, and unchanged files are recognised by size and modification time. A run that was killed
at any point can be repeated: it does only the remaining work and ends in the same state as an uninterrupted one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from indexer.calibrate.calibrate import calibrate_if_due
from indexer.catalogue.home import Home
from indexer.catalogue.records import ChangeKind, EncoderRecord, ImageState, ImageWrite, RejectRecord, SearchState
from indexer.errors import CorruptError
from indexer.generations.build import build_generation
from indexer.generations.store import find_generation, read_verified, remove_damaged
from indexer.ingest.attributes import attributes_fault
from indexer.ingest.embed import Advance, Embedded, embed_files
from indexer.ingest.encoders import sound_encoder
from training.data.decode import ImageLimits
from training.data.manifests import StoredFile
from training.data.reader import Failed, Request
from training.data.sources import Entry, SourceImage, SourceProblem, read_source
from training.reference import EncoderDescription, describe_encoder

STATE_CHUNK = 1000  # source rows compared with the catalogue at a time
RowOutcome = Literal["added", "updated", "unchanged", "rejected"]


@dataclass
class IndexReport:
    """Counts of `nitamono index`: each row is added, updated, unchanged or rejected, or belongs to a deleted item."""

    collection: str
    encoder_id: str
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    deleted: int = 0  # items of the source that were left out because a person deleted them
    reembedded: int = 0  # stored images that got a vector by another encoder
    generation: int = 0
    onnx_compared: bool = True  # False for a new ONNX file without PyTorch; see `Home.add_encoder`
    seconds: dict[str, float] = field(default_factory=dict)

    def count(self, outcome: RowOutcome) -> None:
        setattr(self, outcome, getattr(self, outcome) + 1)


@dataclass(frozen=True, slots=True)
class _Row:
    """A source row with the stored state of its image; `describes` marks the first row of an item."""

    entry: SourceImage
    state: ImageState | None
    describes: bool

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
            stat = os.stat(self.entry.path)
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (state.size, state.mtime_ns)


def index_source(
    home: Home,
    collection: str,
    source: Path,
    *,
    encoder_ref: str | None = None,
    restore_deleted: bool = False,
    advance: Advance = lambda count: None,
    started: Advance = lambda total: None,
    processes: int | None = None,
    limits: ImageLimits | None = None,
    device: str = "cpu",
) -> IndexReport:
    """Index a source into a collection and activate a generation that includes it.

    Args:
        encoder_ref: directory or pretrained name; None keeps the collection's encoder, or `default` for a new one.
        restore_deleted: index items of the source that a person deleted, which are left out otherwise.
        advance: called with the number of rows that were finished since the last call.
        started: called once with the total number of rows.

    Raises:
        SourceError, EncoderError: nothing has been stored.
        BusyError: another process is indexing this collection.
    """
    began = perf_counter()
    entries = [_checked(entry) for entry in read_source(source, store=partial(_store_blob, home))]
    given = describe_encoder(encoder_ref) if encoder_ref is not None else None
    collection_id = home.catalogue.ensure_collection(collection)
    with home.lock(f"collection-{collection}"):
        state = home.catalogue.search_state(collection)
        encoder = given or (sound_encoder(home, state.encoder_id) if state.encoder_id else describe_encoder("default"))
        compared = home.add_encoder(encoder)
        encoder = sound_encoder(home, encoder.encoder_id, encoder_ref)  # the copy, not the given files
        report = IndexReport(collection, encoder.encoder_id, onnx_compared=compared)
        if restore_deleted:
            home.catalogue.tombstones.remove(collection_id, {e.item_id for e in entries if isinstance(e, SourceImage)})
        started(len(entries))
        with ThreadPoolExecutor(1) as writer:
            run = _Run(home, collection_id, encoder, report, advance, processes, limits, device, writer)
            run.index(entries, str(source.absolute()))
            run.embed_others()
        report.seconds["embed"] = perf_counter() - began
        report.generation = _bring_generation_up_to_date(home, collection, encoder, state)
        built = perf_counter()
        calibrate_if_due(home, collection, limits=limits, device=device)
        report.seconds["calibrate"] = perf_counter() - built
        report.seconds["total"] = perf_counter() - began
    return report


def _checked(entry: Entry) -> Entry:
    """The entry, or the problem that its attributes are."""
    if isinstance(entry, SourceImage) and (fault := attributes_fault(entry.attributes)) is not None:
        return SourceProblem(entry.where, fault, entry.item_id, str(entry.path))
    return entry


def _bring_generation_up_to_date(home: Home, collection: str, encoder: EncoderDescription, state: SearchState) -> int:
    """Build a generation unless the active one is of this encoder, includes every change and verifies."""
    active = state.generation
    damaged = active is not None and _is_damaged(home, collection, active)
    same_encoder = active is not None and state.encoder_id == encoder.encoder_id
    unindexed = home.catalogue.changes.has_unindexed(state.collection_id, state.watermark)
    if active is not None and same_encoder and not unindexed and not damaged:
        return active
    number = build_generation(home, collection, EncoderRecord.of(encoder)).number
    if active is not None and damaged:
        remove_damaged(home, collection, active)
    return number


def _is_damaged(home: Home, collection: str, number: int) -> bool:
    try:
        read_verified(home, find_generation(home, collection, number))
    except CorruptError:
        return True
    return False


@dataclass
class _Run:
    home: Home
    collection_id: int
    encoder: EncoderDescription
    report: IndexReport
    advance: Advance
    processes: int | None
    limits: ImageLimits | None
    device: str
    writer: ThreadPoolExecutor  # one thread: a batch is stored while the next is embedded
    pending: list[ImageWrite] = field(default_factory=list)
    storing: Future[None] | None = None

    def index(self, entries: Sequence[Entry], source: str) -> None:
        """Store the new and changed rows of a source."""
        problems = [entry for entry in entries if isinstance(entry, SourceProblem)]
        self.report.rejected += len(problems)
        rows = self._rows(self._without_deleted([entry for entry in entries if isinstance(entry, SourceImage)]))
        for batch in self._embed((row, _request(row)) for row in rows):
            for row, embedded in batch:
                self.pending.append(self._count_read(row, embedded))
            self._flush()
            self.advance(len(batch))
        self._flush()
        self._wait_until_stored()
        records = [RejectRecord("", p.item_id, p.image, p.where, p.reason) for p in problems]
        self.home.catalogue.rejects.replace(self.collection_id, source, records)
        self.advance(len(problems))

    def embed_others(self, *, live: bool = False) -> None:
        """Embed the images from other sources or uploads that lack a vector by this encoder.

        Items that are deleted or replaced meanwhile are left as they are.
        """
        missing = self.home.catalogue.vectors.missing(self.collection_id, self.encoder.encoder_id)
        requests = ((key, Request(self.home.uri_path(key[1]))) for key in missing)
        for batch in self._embed(requests):
            for (item_id, uri), embedded in batch:
                self.report.reembedded += embedded.vector is not None
                self.pending.append(_write(item_id, uri, embedded, kind="updated", describes=False))
            self._flush(live=live, known_only=True)
        self._wait_until_stored()

    def _without_deleted(self, images: Sequence[SourceImage]) -> list[SourceImage]:
        """The images of items that no person deleted; the deleted items are counted."""
        deleted = self.home.catalogue.tombstones.of(self.collection_id)
        kept = [image for image in images if image.item_id not in deleted]
        self.report.deleted = len({image.item_id for image in images} & deleted)
        self.advance(len(images) - len(kept))
        return kept

    def _rows(self, images: Sequence[SourceImage]) -> Iterator[_Row]:
        """Yield the rows whose files must be read; the others are counted."""
        described: set[str] = set()
        for start in range(0, len(images), STATE_CHUNK):
            chunk = images[start : start + STATE_CHUNK]
            states = self.home.catalogue.images.states(
                self.collection_id, self.encoder.encoder_id, (image.item_id for image in chunk)
            )
            untouched = 0
            for image in chunk:
                row = _Row(image, states.get((image.item_id, image.stored_as)), image.item_id not in described)
                described.add(image.item_id)
                if row.is_untouched():
                    self._count_untouched(row)
                    untouched += 1
                else:
                    yield row
            self.advance(untouched)

    def _count_untouched(self, row: _Row) -> None:
        if row.has_new_description:
            self.report.count("updated")
            self.pending.append(_describe(row))
        else:
            self.report.count("unchanged")

    def _count_read(self, row: _Row, embedded: Embedded) -> ImageWrite:
        """Count a row that was read; returns what to store."""
        state, outcome = row.state, embedded.outcome
        was_ok = state is not None and state.status == "ok"
        kind: ChangeKind | None
        if isinstance(outcome, Failed):
            self.report.count("rejected")
            kind = "updated" if was_ok else "rejected" if state is None else None
        elif was_ok and state is not None and outcome.sha256 == state.sha256:
            self.report.count("updated" if row.has_new_description else "unchanged")
            self.report.reembedded += embedded.vector is not None
            kind = "updated" if embedded.vector is not None else None
        else:
            self.report.count("added" if state is None else "updated")
            kind = "added" if state is None else "updated"
        return _write(row.entry.item_id, row.entry.stored_as, embedded, kind=kind, describes=row.describes, row=row)

    def _embed(self, requests: Any) -> Iterator[list[tuple[Any, Embedded]]]:
        return embed_files(requests, self.encoder, processes=self.processes, limits=self.limits, device=self.device)

    def _flush(self, *, live: bool = False, known_only: bool = False) -> None:
        """Start to store the pending batch after the previous one is stored."""
        if not self.pending:
            return
        if self.storing is None:
            self.writer.submit(_import_index_library)
        self._wait_until_stored()
        self.storing = self.writer.submit(
            self.home.catalogue.images.write,
            self.collection_id,
            self.encoder.encoder_id,
            self.pending,
            live=live,
            known_only=known_only,
        )
        self.pending = []

    def _wait_until_stored(self) -> None:
        """Wait until the last batch is stored; raises the error of a failed write."""
        if self.storing is not None:
            self.storing.result()


def embed_missing(
    home: Home,
    collection: str,
    encoder: EncoderDescription,
    *,
    live: bool = False,
    processes: int | None = None,
) -> int:
    """Embed every searchable image of a collection that lacks a vector by an encoder; returns their number.

    Images that can no longer be read are rejected, as in `index_source`.

    Args:
        live: log them as live changes, so that generations already built show them even if their watermark is later
            than the upload.
    """
    collection_id = home.catalogue.collection_id(collection)
    home.add_encoder(encoder)
    report = IndexReport(collection, encoder.encoder_id)
    with ThreadPoolExecutor(1) as writer:
        run = _Run(home, collection_id, encoder, report, lambda count: None, processes, None, "cpu", writer)
        run.embed_others(live=live)
    return report.reembedded


def _store_blob(home: Home, data: bytes) -> StoredFile:
    """Keep an image that a manifest contains."""
    uri = home.add_blob(data)
    return StoredFile(home.uri_path(uri), uri)


def _import_index_library() -> None:
    """Import FAISS early: whatever is stored ends in an index."""
    import indexer.vectors.faiss  # noqa: F401


def _request(row: _Row) -> Request:
    known = row.state.sha256 if row.state is not None and row.state.has_vector else None
    return Request(row.entry.path, known)


def _describe(row: _Row) -> ImageWrite:
    """A write of the item's title and attributes only."""
    entry = row.entry
    return ImageWrite(
        entry.item_id,
        entry.stored_as,
        "described",
        "ok",
        entry.title,
        entry.attributes,
        row.describes,
        entry.mask_stored_as,
    )


def _write(
    item_id: str, uri: str, embedded: Embedded, *, kind: ChangeKind | None, describes: bool, row: _Row | None = None
) -> ImageWrite:
    outcome = embedded.outcome
    entry = row.entry if row else None
    failed = isinstance(outcome, Failed)
    return ImageWrite(
        item_id=item_id,
        uri=uri,
        kind=kind,
        status="rejected" if failed else "ok",
        title=entry.title if entry else None,
        attributes=entry.attributes if entry else {},
        describes=describes,
        mask_uri=entry.mask_stored_as if entry else None,
        sha256=None if isinstance(outcome, Failed) else outcome.sha256,
        size=outcome.size,
        mtime_ns=outcome.mtime_ns,
        width=None if isinstance(outcome, Failed) else outcome.width or None,
        height=None if isinstance(outcome, Failed) else outcome.height or None,
        reason=outcome.reason if isinstance(outcome, Failed) else None,
        vector=embedded.vector,
    )
