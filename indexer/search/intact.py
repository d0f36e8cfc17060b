"""Files that were loaded into memory: whether they are still whole on the disk, for the next start."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from indexer.errors import CorruptError, MismatchError

Stamps = dict[str, tuple[int, int, int]]  # inode, size and time of modification in ns, by file name


class LoadedFiles:
    """The files of a folder that were loaded, to be created before they are verified and read.

    Args:
        verify: reads the files and raises `CorruptError` or `MismatchError` if they are damaged.
    """

    def __init__(self, folder: Path, verify: Callable[[], object]) -> None:
        self._folder = folder
        self._verify = verify
        self._seen = _stamps(folder)
        self._damage: str | None = None

    def damage(self) -> str | None:
        """What is damaged by now; the files are read only if their size, inode or time has changed."""
        found = _stamps(self._folder)
        if found != self._seen:
            try:
                self._verify()
                self._damage = None
            except (CorruptError, MismatchError) as exc:
                self._damage = str(exc)
            self._seen = found
        return self._damage


def _stamps(folder: Path) -> Stamps:
    try:
        with os.scandir(folder) as entries:
            stats = {entry.name: entry.stat() for entry in entries if not entry.name.startswith(".")}
    except OSError:
        return {}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
