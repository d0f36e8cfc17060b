"""Files that a manifest contains, written to a temporary folder so that everything can read them by path.

The folder goes when the process ends. A process that is killed leaves its folder, which the next one removes: each
holds a lock on its own, so an unlocked folder has no owner.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from training.data.manifests import StoredFile
from training.errors import OutputError

PREFIX = "nitamono-images-"
LOCK = "lock"


def store_temporarily(data: bytes) -> StoredFile:
    """Write the bytes to this process's temporary folder, once for each content.

    Raises:
        OutputError: the folder is full or cannot be written to.
    """
    folder = _folder()
    path = folder / hashlib.sha256(data).hexdigest()
    try:
        if not path.exists():
            path.write_bytes(data)
    except OSError as exc:
        remedy = "set TMPDIR to a folder with space for the source's images"
        raise OutputError(f"{folder}: cannot be written to ({exc.strerror}); {remedy}") from exc
    return StoredFile(path)


@lru_cache(maxsize=1)
def _folder() -> Path:
    """This process's folder; its lock is held until the process ends."""
    parent = Path(tempfile.gettempdir())
    remove_abandoned(parent)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / LOCK).exists():  # another process may have removed it between the last two calls
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return folder
        os.close(lock)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of processes that were killed."""
    for folder in parent.glob(PREFIX + "*"):
        try:
            with (folder / LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use, another user's, or not complete yet
            continue
