"""Back up a home while servers and commands use it.

The catalogue is copied first, as one consistent snapshot. Files are published before the catalogue refers to them and
never change, so everything that the snapshot refers to exists at that moment. It may be removed while it is being
copied, by a newer generation for example; then a new snapshot is taken, and only what is missing is copied.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from indexer.backup.contents import Contents, StoredFile, copy_durably, digest, fsync_file
from indexer.catalogue.home import BLOB_SCHEME, CATALOGUE_FILE, Home
from indexer.errors import BusyError, CorruptError, IndexerError
from indexer.generations.manifest import Manifest
from training.errors import OutputError
from training.files import fsync_directory

SNAPSHOTS = 10  # attempts until a snapshot's files are all copied before any of them is removed

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BackupReport:
    """What was written.

    Args:
        damaged: files of the home whose contents do not match their checksum; the backup has them as they are.
        missing: files that the catalogue refers to and the home does not have.
    """

    path: Path
    contents: Contents
    damaged: list[str]
    missing: list[str]


def back_up(home: Home, out: Path, *, link: bool = False, progress: Progress = lambda done, of: None) -> BackupReport:
    """Write a backup of a home into a new directory.

    Args:
        link: make hard links to files that never change, instead of copies; `out` must be on the home's file system.
        progress: called with the number of files that are done, and of all files.

    Raises:
        OutputError: `out` exists, is inside the home, or cannot be written to.
        BusyError: another backup to `out` is running.
        CatalogueError: the catalogue is damaged; nothing is written.
    """
    home.catalogue.database.check()
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: exists; choose a new directory for each backup")
    if out.resolve().is_relative_to(home.path.resolve()):
        raise OutputError(f"{out}: is inside the home; choose a directory outside {home.path}")
    with unpublished(out) as aside:
        report = _write(home, aside, out, link, progress)
        publish(aside, out)
    return report


def _write(home: Home, aside: Path, out: Path, link: bool, progress: Progress) -> BackupReport:
    copied: dict[str, StoredFile] = {}
    gone: set[str] = set()
    for _ in range(SNAPSHOTS):
        created_at = datetime.now(UTC).isoformat(timespec="seconds")
        referred, outside = _snapshot(home, aside)
        missing = _copy(home.path, aside, referred, copied, link, progress)
        if not missing - gone:  # what was missing twice is not being removed: the home has lost it
            break
        gone |= missing
    else:
        raise IndexerError(f"{home.path}: files are removed faster than they are copied; back up to a faster disk")
    for name in copied.keys() - referred.keys():
        (aside / name).unlink()
    files = {name: copied[name] for name in sorted(referred.keys() - missing)}
    if (aside / CATALOGUE_FILE).exists():
        fsync_file(aside / CATALOGUE_FILE)
        files[CATALOGUE_FILE] = digest(aside / CATALOGUE_FILE)
    contents = Contents(created_at, _database(home), outside, files)
    contents.write(aside)
    damaged = [name for name, sha256 in referred.items() if sha256 and name in files and files[name].sha256 != sha256]
    return BackupReport(out, contents, sorted(damaged), sorted(missing))


def _copy(
    root: Path, aside: Path, names: dict[str, str | None], copied: dict[str, StoredFile], link: bool, progress: Progress
) -> set[str]:
    """Copy what is not copied yet; returns the names of files that do not exist."""
    missing = set()
    for number, name in enumerate(names, start=1):
        if name not in copied:
            try:
                copied[name] = copy_durably(root / name, aside / name, link=link)
            except FileNotFoundError:
                missing.add(name)
        progress(number, len(names))
    return missing


def _snapshot(home: Home, aside: Path) -> tuple[dict[str, str | None], int]:
    """Copy the catalogue, and list the files that it refers to.

    Returns:
        The path of every file, relative to the home, with its SHA-256 where the catalogue or the name records it; and
        the number of photos and masks outside the home.
    """
    if _database(home) == "postgresql":
        return _references(home)
    with home.catalogue.snapshot(aside / CATALOGUE_FILE) as catalogue:
        return _references(Home(home.path, catalogue))


def _database(home: Home) -> Literal["sqlite", "postgresql"]:
    return "postgresql" if home.catalogue.database.is_postgresql else "sqlite"


def _references(home: Home) -> tuple[dict[str, str | None], int]:
    names: dict[str, str | None] = {}

    def add(path: Path, sha256: str | None) -> None:
        names[path.relative_to(home.path).as_posix()] = sha256

    for encoder in home.catalogue.encoders.all():
        for path in _files_in(home.encoder_directory(encoder.encoder_id)):
            add(path, None)
    for record in home.catalogue.generations.all():
        if record.status != "removed":
            directory = home.generation_directory(record.collection, record.number)
            for path in _files_in(directory):
                add(path, None)
            add(directory / "manifest.json", record.manifest_sha256)
            for name, sha256 in _checksums(directory).items():
                add(directory / name, sha256)
    for collection in home.catalogue.collections.all():
        for retrain in home.catalogue.retrains.all(collection.name):
            if retrain.status != "running":  # its files still change; a restored home begins it again
                for path in _files_in(home.retrain_directory(collection.name, retrain.number)):
                    add(path, None)
    uris = home.catalogue.images.uris()
    for uri in uris:
        if uri.startswith(BLOB_SCHEME):
            add(home.uri_path(uri), uri.removeprefix(BLOB_SCHEME))
    return names, sum(not uri.startswith(BLOB_SCHEME) for uri in uris)


def _files_in(directory: Path) -> list[Path]:
    """The published files in a directory: names that begin with a dot are still being written."""
    return [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    ]


def _checksums(generation: Path) -> dict[str, str]:
    try:
        return Manifest.read(generation).sha256
    except CorruptError:
        return {}  # its own checksum, which is in the catalogue, tells


@contextmanager
def unpublished(target: Path) -> Iterator[Path]:
    """An empty directory beside `target` to write into, which `publish` renames; removed if it was not renamed.

    What a killed process left there is removed first.

    Raises:
        BusyError: another process is writing to the same target.
        OutputError: a file cannot be read or written.
    """
    aside = target.with_name(f".{target.name}.unfinished")
    try:
        aside.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(aside, os.O_RDONLY)
        try:
            _lock(descriptor, aside, target)
            _empty(aside)
            yield aside
        finally:
            if _is_same(descriptor, aside):
                shutil.rmtree(aside, ignore_errors=True)
            os.close(descriptor)
    except OSError as exc:
        raise OutputError(f"{exc.filename or target}: cannot be copied ({exc.strerror})") from exc


def publish(aside: Path, target: Path) -> None:
    """Make a directory durable, and rename it to `target`, which is missing or empty."""
    for directory in [*(path for path in aside.rglob("*") if path.is_dir()), aside]:
        fsync_directory(directory)
    os.replace(aside, target)
    fsync_directory(target.parent)


def is_being_written(aside: Path) -> bool:
    """Whether a running `backup` or `restore` writes into this unpublished directory."""
    descriptor = os.open(aside, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(descriptor: int, aside: Path, target: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_same(descriptor, aside):
            return
    except BlockingIOError:
        pass
    raise BusyError(f"{target} is being written by another process; try again when that has ended")


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether an open directory is still at its path, not renamed and replaced."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
