"""Publish files atomically: a crash at any moment leaves either the old or the new content, never a part of it."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from training.errors import OutputError


def fsync_directory(directory: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and fsync it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def publish_file(path: Path, data: bytes) -> Path:
    """Write a temporary file, fsync it, and rename it to `path`; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        write_durably(aside, data)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    fsync_directory(path.parent)
    return path


def check_output_file(path: Path) -> None:
    """Check, before the work starts, that a file can be written; creates its parent folders.

    Raises:
        OutputError: the path is a directory, or its folder cannot be created or written to.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a directory; give the path of a file")
    check_output_folder(path.parent)


def check_output_folder(folder: Path) -> None:
    """Create a folder and check that files can be written there; raises OutputError if they cannot."""
    probe = folder / f".nitamono-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except FileExistsError as exc:
        raise OutputError(f"{folder}: cannot be written to (it is a file, not a folder)") from exc
    except OSError as exc:
        raise OutputError(f"{folder}: cannot be written to ({exc.strerror})") from exc


def publish_directory(directory: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files to a temporary directory, fsync it, and rename it to `directory`, replacing an existing one."""
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
