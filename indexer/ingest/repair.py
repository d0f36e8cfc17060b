"""`nitamono repair`: restore damaged encoders, and rebuild damaged generations from the catalogue's vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from indexer.catalogue.home import Home
from indexer.catalogue.records import EncoderRecord
from indexer.errors import CorruptError, MismatchError
from indexer.generations.build import build_generation
from indexer.generations.store import remove_damaged, verify
from indexer.ingest.encoders import sound_encoder


@dataclass
class RepairReport:
    """What `repair` found and did.

    Args:
        rebuilt: collection -> number of the generation that replaces the damaged active one.
        removed: `collection/number` of damaged generations that were not active.
        encoders: ids of the encoders whose files were restored.
        problems: what could not be repaired.
    """

    rebuilt: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    encoders: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def repair(home: Home, source: str | Path | None = None) -> RepairReport:
    """Verify every encoder and generation of a home, and repair those that are damaged.

    Args:
        source: directory or name of an encoder to restore a damaged copy with the same id from; shipped encoders are
            found without it.

    Raises:
        BusyError: another process is indexing a collection.
        CatalogueError: the catalogue itself is damaged; only a backup can restore it.
    """
    home.catalogue.database.check()
    report = RepairReport()
    for record in home.catalogue.encoders.all():
        if home.has_sound_encoder(record.encoder_id):
            continue
        try:
            sound_encoder(home, record.encoder_id, source)
            report.encoders.append(record.encoder_id)
        except (CorruptError, MismatchError) as exc:
            report.problems.append(str(exc))
    for collection in home.catalogue.collections.all():
        with home.lock(f"collection-{collection.name}"):
            _repair_collection(home, collection.name, report)
    return report


def _repair_collection(home: Home, collection: str, report: RepairReport) -> None:
    """Rebuild the active generation if it is damaged; remove other damaged ones, which could not be activated."""
    for record in home.catalogue.generations.all(collection):
        is_active = record.status == "active"  # others need not be whole, as long as they can be activated
        if record.status == "removed" or not verify(home, collection, record.number, optional=is_active):
            continue
        if not home.has_sound_encoder(record.encoder_id):
            continue  # reported as a problem already; the generation's files may be whole
        if is_active:
            encoder = EncoderRecord.of(home.encoder(record.encoder_id))
            report.rebuilt[collection] = build_generation(home, collection, encoder).number
        else:
            report.removed.append(f"{collection}/{record.number}")
        remove_damaged(home, collection, record.number)
