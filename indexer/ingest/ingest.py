"""`nitamono index`: bring a collection up to date with a source and activate a new generation.

Each batch is one transaction, and unchanged files are recognised by size and modification time. A run that was killed
at any point can be repeated: it does only the remaining work and ends in the same state as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from indexer.calibrate.calibrate import calibrate_if_due
from indexer.catalogue.home import Home, blob_uri
from indexer.catalogue.records import (
    ChangeKind,
    EncoderRecord,
    ImageWrite,
    RejectRecord,
    SearchState,
    StoredImage,
)
from indexer.errors import CorruptError, PruneError
from indexer.generations.build import build_generation
from indexer.generations.manifest import Manifest
from indexer.generations.store import find_generation, read_verified, remove_damaged
from indexer.ingest.attributes import attributes_fault
from indexer.ingest.embed import Advance, Embedded, embed_files
from indexer.ingest.encoders import sound_encoder
from indexer.ingest.left_behind import EXAMPLES, LeftBehind, check_prunable, share_fault
from indexer.ingest.rows import Reading, Row, write_of
from indexer.options import PRUNE_LIMIT
from indexer.vectors import IndexOptions
from training.data.decode import ImageLimits
from training.data.manifests import StoredFile
from training.data.reader import Failed, Request
from training.data.sources import Entry, SourceImage, SourceProblem, read_source
from training.reference import EncoderDescription, describe_any

STATE_CHUNK = 1000  # source rows compared with the catalogue at a time
RowOutcome = Literal["added", "updated", "moved", "unchanged", "rejected"]


@dataclass
class IndexReport:
    """Counts of `nitamono index`.

    Each row is added, updated, moved, unchanged or rejected, or belongs to an item that was left out.
    """

    collection: str
    encoder_id: str
    added: int = 0
    updated: int = 0
    moved: int = 0  # rows whose image was stored at another place, or under another item_id
    unchanged: int = 0
    rejected: int = 0
    deleted: int = 0  # items of the source that were left out because a person deleted them
    replaced: int = 0  # items of the source that were left out because they were written over HTTP
    pruned: int = 0  # images that were removed because the source no longer lists them
    gone: int = 0  # searchable images whose file does not exist and that the source does not list
    gone_examples: list[str] = field(default_factory=list)  # URIs of the first ones
    reembedded: int = 0  # stored images that got a vector by another encoder
    generation: int = 0
    onnx_compared: bool = True  # False for a new ONNX file without PyTorch; see `Home.add_encoder`
    seconds: dict[str, float] = field(default_factory=dict)

    def count(self, outcome: RowOutcome) -> None:
        setattr(self, outcome, getattr(self, outcome) + 1)


def index_source(
    home: Home,
    collection: str,
    source: Path,
    *,
    encoder_ref: str | None = None,
    restore_deleted: bool = False,
    restore_replaced: bool = False,
    prune: bool = False,
    prune_limit: float = PRUNE_LIMIT,
    advance: Advance = lambda count: None,
    started: Advance = lambda total: None,
    processes: int | None = None,
    limits: ImageLimits | None = None,
    device: str = "cpu",
    choose_index: Callable[[IndexOptions], IndexOptions] = lambda options: options,
) -> IndexReport:
    """Index a source into a collection and activate a generation that includes it.

    Args:
        encoder_ref: directory or pretrained name; None keeps the collection's encoder, or `default` for a new one.
        restore_deleted: index items of the source that a person deleted, which are left out otherwise.
        restore_replaced: index items of the source that were written over HTTP, which are left out otherwise.
        prune: remove the images of this source that it no longer lists, and the items of which none is left.
        prune_limit: share of the source's images, 0 to 1; nothing is removed if it would be more.
        advance: called with the number of rows that were finished since the last call.
        started: called once with the total number of rows.
        choose_index: from the collection's options of its index to those that it gets, which are kept.

    Raises:
        SourceError, EncoderError: nothing has been stored.
        BusyError: another process is indexing this collection.
        PruneError: the source lists nothing or cannot be read in part, and nothing has been stored; or it lacks more
            than `prune_limit`, and it has been indexed without removing anything.
    """
    began = perf_counter()
    reading = Reading.of(source, [_checked(entry) for entry in read_source(source, store=partial(_store_blob, home))])
    if prune:
        check_prunable(reading)
    given = describe_any(encoder_ref) if encoder_ref is not None else None
    collection_id = home.catalogue.ensure_collection(collection)
    with home.lock(f"collection-{collection}"):
        state = home.catalogue.search_state(collection)
        encoder = given or (sound_encoder(home, state.encoder_id) if state.encoder_id else describe_any("default"))
        compared = home.add_encoder(encoder)
        encoder = sound_encoder(home, encoder.encoder_id, encoder_ref)  # the copy, not the given files
        report = IndexReport(collection, encoder.encoder_id, onnx_compared=compared)
        options = home.catalogue.collections.index_options(collection_id)
        if (chosen := choose_index(options)) != options:
            home.catalogue.collections.set_index_options(collection_id, chosen)
        if restore_deleted:
            home.catalogue.tombstones.remove(collection_id, {image.item_id for image in reading.images})
        started(len(reading.images) + len(reading.problems))
        with ThreadPoolExecutor(1) as writer:
            run = _Run(home, collection_id, encoder, report, advance, processes, limits, device, writer)
            left = run.index(reading, restore_replaced)
            fault = _prune(home, collection_id, left, report, prune_limit) if prune else None
            run.embed_others()
        gone = left.gone()
        report.gone, report.gone_examples = len(gone), [image.uri for image in gone[:EXAMPLES]]
        report.seconds["embed"] = perf_counter() - began
        report.generation = bring_generation_up_to_date(home, collection, encoder, state)
        built = perf_counter()
        calibrate_if_due(home, collection, limits=limits, device=device)
        report.seconds["calibrate"] = perf_counter() - built
        report.seconds["total"] = perf_counter() - began
    if fault is not None:
        raise PruneError(fault)
    return report


def _prune(home: Home, collection_id: int, left: LeftBehind, report: IndexReport, limit: float) -> str | None:
    """Remove what a source no longer lists; returns the reason if that is refused."""
    unlisted = left.unlisted()
    fault = share_fault(left, collection_id, unlisted, limit)
    if fault is None:
        home.catalogue.images.remove(collection_id, unlisted)
        report.pruned = len(unlisted)
        for image in unlisted:
            del left.images[image.image_id]
    return fault


def unlisted_images(
    home: Home, collection: str, source: Path, *, prune_limit: float = PRUNE_LIMIT
) -> list[StoredImage]:
    """What `index_source` would remove with `prune`; nothing is changed.

    Raises:
        NotFoundError: the collection does not exist.
        PruneError: `index_source` would refuse to remove anything.
    """

    def name(data: bytes) -> StoredFile:
        """Where an image that the source contains would be stored."""
        return StoredFile(home.uri_path(blob_uri(data)), blob_uri(data))

    reading = Reading.of(source, [_checked(entry) for entry in read_source(source, store=name)])
    check_prunable(reading)
    collection_id = home.catalogue.collection_id(collection)
    left = LeftBehind.of(home, collection_id, reading)
    left.claim_all({(image.item_id, image.uri) for image in home.catalogue.images.stored(collection_id)})
    unlisted = left.unlisted()
    if fault := share_fault(left, collection_id, unlisted, prune_limit):
        raise PruneError(fault)
    return unlisted


def _checked(entry: Entry) -> Entry:
    """The entry, or the problem that its attributes are."""
    if isinstance(entry, SourceImage) and (fault := attributes_fault(entry.attributes)) is not None:
        return SourceProblem(entry.where, fault, entry.item_id, str(entry.path))
    return entry


def bring_generation_up_to_date(home: Home, collection: str, encoder: EncoderDescription, state: SearchState) -> int:
    """Build a generation unless the active one is of this encoder and index, includes every change and verifies."""
    active = state.generation
    manifest = _verified_manifest(home, collection, active)
    unindexed = home.catalogue.changes.has_unindexed(state.collection_id, state.watermark)
    if active is not None and manifest is not None and state.encoder_id == encoder.encoder_id and not unindexed:
        options = home.catalogue.collections.index_options(state.collection_id)
        if IndexOptions(**manifest.options) == options and manifest.engine == home.vectors:
            return active
    number = build_generation(home, collection, EncoderRecord.of(encoder)).number
    if active is not None and manifest is None:
        remove_damaged(home, collection, active)
    return number


def _verified_manifest(home: Home, collection: str, number: int | None) -> Manifest | None:
    """The manifest of a generation; None if the generation does not exist or is damaged."""
    if number is None:
        return None
    try:
        return read_verified(home, find_generation(home, collection, number))
    except CorruptError:
        return None


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
    source: str = ""  # of the rows that are indexed
    restore_replaced: bool = False
    pending: list[ImageWrite] = field(default_factory=list)
    storing: Future[None] | None = None

    def index(self, reading: Reading, restore_replaced: bool) -> LeftBehind:
        """Store the new and changed rows of a source; returns the images that it does not list."""
        self.source, self.restore_replaced = reading.source, restore_replaced
        self.report.rejected += len(reading.problems)
        left = LeftBehind.of(self.home, self.collection_id, reading)
        rows = self._rows(self._without_kept(reading.images), left)
        for batch in self._embed((row, row.request()) for row in rows):
            for row, embedded in batch:
                self.pending.append(self._count_read(row, embedded, left))
            self._flush()
            self.advance(len(batch))
        self._flush()
        self._wait_until_stored()
        records = [RejectRecord("", p.item_id, p.image, p.where, p.reason) for p in reading.problems]
        self.home.catalogue.rejects.replace(self.collection_id, reading.source, records)
        self.advance(len(reading.problems))
        return left

    def embed_others(self, *, live: bool = False) -> None:
        """Embed the images from other sources or uploads that lack a vector by this encoder.

        Items that are deleted or replaced meanwhile are left as they are.
        """
        missing = self.home.catalogue.vectors.missing(self.collection_id, self.encoder.encoder_id)
        requests = ((key, Request(self.home.uri_path(key[1]))) for key in missing)
        for batch in self._embed(requests):
            for (item_id, uri), embedded in batch:
                self.report.reembedded += embedded.vector is not None
                self.pending.append(write_of(item_id, uri, embedded, kind="updated"))
            self._flush(live=live, known_only=True)
        self._wait_until_stored()

    def _without_kept(self, images: Sequence[SourceImage]) -> list[SourceImage]:
        """The images of items that no person deleted or wrote over HTTP; those items are counted."""
        listed = {image.item_id for image in images}
        deleted = self.home.catalogue.tombstones.of(self.collection_id) & listed
        replaced: set[str] = set()
        if not self.restore_replaced:
            replaced = self.home.catalogue.items.written_over_http(self.collection_id) & listed
        self.report.deleted, self.report.replaced = len(deleted), len(replaced)
        kept = [image for image in images if image.item_id not in deleted | replaced]
        self.advance(len(images) - len(kept))
        return kept

    def _rows(self, images: Sequence[SourceImage], left: LeftBehind) -> Iterator[Row]:
        """Yield the rows whose files must be read; the others are counted."""
        described: set[str] = set()
        for start in range(0, len(images), STATE_CHUNK):
            chunk = images[start : start + STATE_CHUNK]
            states = self.home.catalogue.images.states(
                self.collection_id, self.encoder.encoder_id, (image.item_id for image in chunk)
            )
            untouched = 0
            for image in chunk:
                state = states.get((image.item_id, image.stored_as))
                moved = left.contents(image) if state is None else frozenset()
                row = Row(image, state, image.item_id not in described, moved)
                described.add(image.item_id)
                if row.is_untouched():
                    self._count_untouched(row)
                    untouched += 1
                else:
                    yield row
            if untouched == len(chunk):
                self._flush()
            self.advance(untouched)

    def _count_untouched(self, row: Row) -> None:
        described = row.has_new_description
        self.report.count("updated" if described else "unchanged")
        if described or (row.state is not None and row.state.source != self.source):
            self.pending.append(row.description(self.source))

    def _count_read(self, row: Row, embedded: Embedded, left: LeftBehind) -> ImageWrite:
        """Count a row that was read; returns what to store."""
        state, outcome = row.state, embedded.outcome
        was_ok = state is not None and state.status == "ok"
        kind: ChangeKind | None
        moved = None
        if isinstance(outcome, Failed):
            self.report.count("rejected")
            kind = "updated" if was_ok else "rejected" if state is None else None
        elif was_ok and state is not None and outcome.sha256 == state.sha256:
            self.report.count("updated" if row.has_new_description else "unchanged")
            self.report.reembedded += embedded.vector is not None
            kind = "updated" if embedded.vector is not None else None
        elif state is None and (moved := left.claim(row.entry, outcome.sha256)) is not None:
            self.report.count("moved")
            kind = "described" if moved.status == "ok" else "updated"
        else:
            self.report.count("added" if state is None else "updated")
            kind = "added" if state is None else "updated"
        return row.write(embedded, kind=kind, source=self.source, moved_from=moved)

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
            restore_replaced=self.restore_replaced,
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
