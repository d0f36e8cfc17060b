"""Restore a home from a backup: every file is verified before any of them is in place."""

from __future__ import annotations

from pathlib import Path

from indexer.backup.backup import Progress, publish, unpublished
from indexer.backup.contents import CONTENTS_FILE, Contents, copy_durably, listed
from indexer.errors import CorruptError, NotFoundError
from training.errors import OutputError


def restore(backup: Path, home: Path, *, progress: Progress = lambda done, of: None) -> Contents:
    """Copy a backup into a new home.

    A kill at any moment leaves no home behind, or a whole one.

    Raises:
        NotFoundError: there is no backup.
        OutputError: the home exists, or cannot be written to.
        CorruptError: files are missing, or differ from their checksums; nothing is restored.
    """
    if not backup.is_dir():
        raise NotFoundError(f"no backup at {backup}; give the directory that `nitamono backup` wrote")
    home = home.absolute()
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise OutputError(f"{home}: exists; move it away first, or restore into another --home")
    contents = Contents.read(backup)
    with unpublished(home) as aside:
        damaged = []
        for number, (name, expected) in enumerate(contents.files.items(), start=1):
            try:
                if copy_durably(backup / name, aside / name) != expected:
                    damaged.append(f"{name} (changed)")
            except FileNotFoundError:
                damaged.append(f"{name} (missing)")
            progress(number, len(contents.files))
        if damaged:
            raise CorruptError(
                f"{backup}: {len(damaged)} of {len(contents.files)} files do not match {CONTENTS_FILE}: "
                f"{listed(damaged)}; nothing was restored"
            )
        publish(aside, home)
    return contents
