"""What a backup consists of: `backup.json`, and the files that it lists.

backup.json            format, date, database, and size and SHA-256 of every file
catalogue.sqlite       a snapshot of the catalogue (none if it is in PostgreSQL)
encoders/, collections/, blobs/, retrains/    as in the home
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from indexer.errors import CorruptError
from training.files import sha256_of, write_durably
from training.reference import first_line

FORMAT = 1
CONTENTS_FILE = "backup.json"
SHOWN = 5  # paths in an error message


@dataclass(frozen=True)
class StoredFile:
    """Size in bytes and SHA-256 of a file of a backup."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Contents:
    """The contents of `backup.json`.

    Args:
        created_at: ISO 8601, UTC: the moment of the catalogue's snapshot.
        database: where the home's catalogue was; a catalogue in PostgreSQL is not part of the backup.
        outside: number of photos and masks that are not in the home, and therefore not in the backup.
        files: by path relative to the backup, with forward slashes.
    """

    created_at: str
    database: Literal["sqlite", "postgresql"]
    outside: int
    files: dict[str, StoredFile]

    @property
    def size(self) -> int:
        """Size of all files in bytes."""
        return sum(file.size for file in self.files.values())

    @classmethod
    def read(cls, directory: Path) -> Contents:
        """Read `backup.json`; raises `CorruptError` if it is missing, malformed or of another format."""
        path = directory / CONTENTS_FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            files = {name: StoredFile(int(f["size"]), str(f["sha256"])) for name, f in document.pop("files").items()}
            contents = cls(**document, files=files)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
            raise CorruptError(f"{path}: not the list of a whole backup ({first_line(exc)})") from exc
        for name in contents.files:
            parts = PurePosixPath(name)
            if parts.is_absolute() or ".." in parts.parts or "\\" in name:
                raise CorruptError(f"{path}: lists {name!r}, which is outside the backup")
        return contents

    def write(self, directory: Path) -> None:
        """Write `backup.json` durably; it is the last file of a backup."""
        document = {"format": FORMAT, **asdict(self)}
        write_durably(directory / CONTENTS_FILE, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


def copy_durably(source: Path, target: Path, *, link: bool = False) -> StoredFile:
    """Copy a file and fsync the copy, or make a hard link to it; returns size and SHA-256 of what was read."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.unlink(missing_ok=True)
        os.link(source, target)
    else:
        shutil.copyfile(source, target)
    if not link:
        fsync_file(target)
    return digest(target)


def digest(path: Path) -> StoredFile:
    """Size and SHA-256 of a file."""
    return StoredFile(path.stat().st_size, sha256_of(path))


def fsync_file(path: Path) -> None:
    """Make the contents of a file durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def listed(paths: list[str]) -> str:
    """Paths for an error message, at most `SHOWN` of them."""
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + more
