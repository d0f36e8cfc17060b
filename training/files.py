"""Publishing files so that a crash at any moment leaves the old content or the new, never a part."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path


def fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def publish_file(path: Path, data: bytes) -> Path:
    """Write a file aside, fsync it, and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        write_durably(aside, data)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    fsync_directory(path.parent)
    return path


def publish_directory(directory: Path, files: Mapping[str, bytes]) -> Path:
    """Write a directory of files aside, fsync it, and rename it into place; one that stands there is replaced."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = directory.with_name(f".{directory.name}-{uuid.uuid4().hex}")
    aside.mkdir()
    try:
        for name, data in files.items():
            write_durably(aside / name, data)
        fsync_directory(aside)
        if directory.exists():
            old = directory.with_name(f".{directory.name}-old-{uuid.uuid4().hex}")
            os.rename(directory, old)
            os.rename(aside, directory)
            shutil.rmtree(old)
        else:
            os.rename(aside, directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    fsync_directory(directory.parent)
    return directory
