"""Files that a manifest contains, written to a temporary folder so that everything can read them by path.

The folder goes when the process ends. A process that is killed leaves its folder, which the next one removes: each
holds a lock on its own, so an unlocked folder has no owner.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import IO

from training.data.manifests import StoredFile
from training.errors import OutputError

PREFIX = "nitamono-images-"
LOCK = "lock"


def store_temporarily(data: bytes) -> StoredFile:
    """Write the bytes to this process's temporary folder, once for each content.

    Raises:
        OutputError: the folder is full or cannot be written to.
    """
    folder, _ = _folder()
    path = folder / hashlib.sha256(data).hexdigest()
    try:
        if not path.exists():
            path.write_bytes(data)
    except OSError as exc:
        remedy = "set TMPDIR to a folder with space for the source's images"
        raise OutputError(f"{folder}: cannot be written to ({exc.strerror}); {remedy}") from exc
    return StoredFile(path)


@lru_cache(maxsize=1)
def _folder() -> tuple[Path, IO[bytes]]:
    """This process's folder and its lock, which is held as long as the file is open."""
    remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = (folder / LOCK).open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder, lock


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of processes that were killed."""
    for folder in parent.glob(PREFIX + "*"):
        try:
            with (folder / LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use, another user's, or not complete yet
            continue
