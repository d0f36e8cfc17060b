"""Publishing files so that a crash at any moment leaves the old content or the new, never a part."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from training.errors import OutputError


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


def check_output_file(path: Path) -> None:
    """Find out before the work whether a file can be written; folders above it are made.

    Raises:
        OutputError: it is a directory, or its folder cannot be made or written to.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a directory; name a file")
    check_output_folder(path.parent)


def check_output_folder(folder: Path) -> None:
    """Make a folder, and find out whether files can be written there; OutputError where they cannot."""
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
