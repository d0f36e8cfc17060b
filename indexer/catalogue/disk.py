"""Failures to write files of a home, as our errors."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.errors import DiskFullError, ReadOnlyError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the path if nothing can be stored there; other failures pass.

    Raises:
        DiskFullError: the disk, a quota or the largest size of a file is exceeded.
        ReadOnlyError: the file system or the folder is read-only.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno in FULL:
            raise DiskFullError(
                f"{path}: cannot be written ({exc.strerror}); free some disk space and try again"
            ) from exc
        if exc.errno in READ_ONLY:
            raise ReadOnlyError(f"{path}: cannot be written ({exc.strerror}); allow writing to the home") from exc
        raise
