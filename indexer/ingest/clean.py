"""`nitamono clean`: remove files of a home that nothing refers to.

It is safe beside running servers and commands:

- It holds the lock of every collection, which `index`, `repair` and `retrain` hold while they build a generation, so no
  generation is removed while it is built.
- A photo is removed only if it is older than `AGE`, and if no image refers to it in a transaction that holds the
  collections' rows, which every write of an item locks. So no write can commit between the check and the removal, and
  `put_item` stores its photos again after its commit if they were removed just before it.
- Temporary files are recognised by the names that `training.files` gives them, and are older than `AGE`. A restore that
  is still running holds a lock on its folder.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from indexer.backup.backup import is_being_written
from indexer.catalogue.home import BLOB_SCHEME, Home
from indexer.errors import MismatchError

AGE = 3600.0  # seconds
TEMPORARY = re.compile(r"\..*-[0-9a-f]{32}|\..*\.unfinished")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Leftover:
    """What nothing refers to: a file or folder of `kind` `photo`, `temporary` or `generation`, or a `table` by name."""

    kind: str
    path: Path
    bytes: int


@dataclass
class CleanReport:
    """What `clean` removed, or would remove."""

    removed: list[Leftover] = field(default_factory=list)
    dry_run: bool = False

    @property
    def bytes(self) -> int:
        return sum(leftover.bytes for leftover in self.removed)


def clean(home: Home, *, dry_run: bool = False) -> CleanReport:
    """Remove photos without an image, temporary files of killed processes, and generations that are not kept.

    A generation may have a folder and a table of vectors.

    Raises:
        BusyError: another process is indexing a collection.
        MismatchError: the catalogue is empty and the home is not, as with a wrong database URL.
    """
    names = [collection.name for collection in home.catalogue.collections.all()]
    if not names and (any(home.path.glob("collections/*")) or any(home.path.glob("blobs/*/*"))):
        raise MismatchError(
            f"home {home.path} has photos or generations, but its catalogue has no collection; "
            "check NITAMONO_DATABASE_URL"
        )
    with ExitStack() as held:
        for name in names:
            held.enter_context(home.lock(f"collection-{name}"))
        found = [*_temporary(home), *_generations(home, names)]
        if not dry_run:
            for leftover in found:
                _remove(leftover.path)
        tables = home.catalogue.vector_tables
        unused = tables.unused() if dry_run else tables.drop_unused()
        found += [Leftover("table", Path(name), size) for name, size in unused]
        return CleanReport([*found, *_photos(home, dry_run)], dry_run)


def _temporary(home: Home) -> Iterator[Leftover]:
    """Files and folders that a killed process was writing, in the home and beside it (of `restore`)."""
    for path in [*sorted(home.path.rglob(".*")), home.path.with_name(f".{home.path.name}.unfinished")]:
        if TEMPORARY.fullmatch(path.name) and _is_old(path) and not _is_only_copy(path) and not _is_in_use(path):
            yield Leftover("temporary", path, _size(path))


def _is_only_copy(path: Path) -> bool:
    """Whether a process was killed while it replaced a folder, whose old content is under this name alone."""
    name, found, _ = path.name.removeprefix(".").rpartition("-old-")
    return bool(found) and not path.with_name(name).exists()


def _is_in_use(path: Path) -> bool:
    return path.name.endswith(".unfinished") and path.is_dir() and is_being_written(path)


def _generations(home: Home, collections: list[str]) -> Iterator[Leftover]:
    """Folders of generations that the catalogue does not have or has marked as removed."""
    for name in collections:
        records = home.catalogue.generations.all(name)
        kept = {home.generation_directory(name, r.number) for r in records if r.status != "removed"}
        for path in sorted(home.generations_directory(name).glob("[0-9]*")):
            if path not in kept:
                yield Leftover("generation", path, _size(path))


def _photos(home: Home, dry_run: bool) -> list[Leftover]:
    """Remove the stored photos that neither an image nor the photos of a retraining refer to."""
    old = [path for path in sorted(home.path.glob("blobs/*/*")) if SHA256.fullmatch(path.name) and _is_old(path)]
    used = {name for path in home.path.glob("retrains/*/export.json") for name in SHA256.findall(path.read_text())}
    with home.catalogue.images.no_writes() as uris:
        used |= {uri.removeprefix(BLOB_SCHEME) for uri in uris if uri.startswith(BLOB_SCHEME)}
        found = [Leftover("photo", path, _size(path)) for path in old if path.name not in used and _is_old(path)]
        if not dry_run:
            for leftover in found:
                _remove(leftover.path)
    return found


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > AGE
    except FileNotFoundError:
        return False


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 if it has just been removed."""
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    try:
        return sum(file.lstat().st_size for file in files if not file.is_dir())
    except FileNotFoundError:
        return 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
