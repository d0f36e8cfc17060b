"""Small JPEGs of catalogue images, kept in a folder of bounded size.

A thumbnail is stored under the content of its image and its width, so it never goes out of date. Several processes may
share the folder: files appear whole, and the least recently used ones are deleted.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import threading
from collections import OrderedDict
from pathlib import Path
from time import time
from typing import NamedTuple

from PIL import Image

from indexer.decoding import MemoryBudget, decoded
from indexer.errors import NotFoundError
from training.data.decode import ImageLimits

MAX_WIDTH = 2048
QUALITY = 85
DIGESTS = 50_000  # files whose digest is remembered
LOCKS = 64  # so that one thumbnail is made once, however many ask for it
SWEEP_SHARE = 16  # one part in this many of the limit is written between two sweeps
FULL_SHARE = 0.8  # of the limit that a sweep leaves
USED_AGAIN_AFTER = 600  # seconds after which a use is recorded again
logger = logging.getLogger("nitamono")


class Thumbnail(NamedTuple):
    """A JPEG, and the SHA-256 of the image that it shows."""

    sha256: str
    jpeg: bytes


class Thumbnails:
    """The thumbnails of a home.

    Args:
        folder: where they are kept.
        limit: bytes to keep; 0 keeps none.
    """

    def __init__(self, folder: Path, limit: int, limits: ImageLimits, memory: MemoryBudget) -> None:
        self._folder = folder
        self._limit = limit
        self._limits = limits
        self._memory = memory
        self._digests: OrderedDict[tuple[str, int, int, int], str] = OrderedDict()
        self._lock = threading.Lock()
        self._locks = [threading.Lock() for _ in range(LOCKS)]
        self._unswept = limit  # bytes written since the last sweep; the first write sweeps

    def digest(self, path: Path) -> str:
        """The SHA-256 of an image file; the file is read only if it has changed.

        Raises:
            NotFoundError: the file cannot be read.
            ImageError: the file is too large.
        """
        try:
            stat = path.stat()
            key = (str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
            with self._lock:
                if key in self._digests:
                    self._digests.move_to_end(key)
                    return self._digests[key]
            digest = hashlib.sha256(self._read(path)).hexdigest()
        except OSError as exc:
            raise NotFoundError(f"the file of the image cannot be read ({exc.strerror})") from exc
        with self._lock:
            self._digests[key] = digest
            while len(self._digests) > DIGESTS:
                self._digests.popitem(last=False)
        return digest

    def get(self, path: Path, width: int) -> Thumbnail:
        """The thumbnail of an image file, made if it is not stored.

        Raises:
            NotFoundError, ImageError, BusyError: see `digest` and `thumbnail`.
        """
        sha256 = self.digest(path)
        with self._locks[hash((sha256, width)) % LOCKS]:
            if (stored := self._load(sha256, width)) is not None:
                return Thumbnail(sha256, stored)
            try:
                data = self._read(path)
            except OSError as exc:
                raise NotFoundError(f"the file of the image cannot be read ({exc.strerror})") from exc
            sha256 = hashlib.sha256(data).hexdigest()  # the file may have changed meanwhile
            jpeg = thumbnail(data, width, self._limits, self._memory)
            self._store(sha256, width, jpeg)
        return Thumbnail(sha256, jpeg)

    def _read(self, path: Path) -> bytes:
        self._limits.check_bytes(path.stat().st_size)
        return path.read_bytes()

    def _path(self, sha256: str, width: int) -> Path:
        return self._folder / sha256[:2] / f"{sha256}-{width}.jpg"

    def _load(self, sha256: str, width: int) -> bytes | None:
        path = self._path(sha256, width)
        try:
            jpeg = path.read_bytes()
            if time() - path.stat().st_mtime > USED_AGAIN_AFTER:
                os.utime(path)
        except OSError:
            return None
        # After a power failure, a file may exist without its content.
        return jpeg if jpeg.startswith(b"\xff\xd8") and jpeg.endswith(b"\xff\xd9") else None

    def _store(self, sha256: str, width: int, jpeg: bytes) -> None:
        if len(jpeg) > self._limit // SWEEP_SHARE:
            return
        path = self._path(sha256, width)
        written = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            written.write_bytes(jpeg)
            written.replace(path)
            self._sweep_if_due(len(jpeg))
        except OSError as exc:  # a full disk or a read-only home costs speed, not the answer
            logger.warning("thumbnails are not kept in %s (%s)", self._folder, exc.strerror)

    def _sweep_if_due(self, count: int) -> None:
        with self._lock:
            self._unswept += count
            if self._unswept < self._limit // SWEEP_SHARE:
                return
            self._unswept = 0
        self._sweep()

    def _sweep(self) -> None:
        """Delete the least recently used thumbnails if all together exceed the limit by the next sweep."""
        found = []
        for path in self._folder.glob("*/*"):
            try:
                stat = path.stat()
            except OSError:
                continue  # another process deleted it
            found.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self._limit * FULL_SHARE:
            return
        for _, size, path in sorted(found):
            path.unlink(missing_ok=True)
            total -= size
            if total <= self._limit * FULL_SHARE:
                break


def thumbnail(data: bytes, width: int, limits: ImageLimits, memory: MemoryBudget) -> bytes:
    """An upright JPEG at most `width` pixels wide and `2 * width` high, never enlarged.

    Raises:
        ImageError: the bytes are not an image within the limits.
        BusyError: other images take the memory at the moment.
    """
    with decoded(data, at_least=width, limits=limits, memory=memory) as found:
        image = Image.fromarray(found.pixels)
        del found  # its memory is free again after the block
        image.thumbnail((width, 2 * width), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()
