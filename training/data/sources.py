"""Read a SOURCE of images: a folder, or a `.csv`, `.jsonl` or `.parquet` manifest.

A folder has one item per file: the path is its item_id and the sub-folder its category. A manifest has the columns
`item_id,image[,mask,title,category,...]`; image paths are relative to the manifest, and several rows may share an
item_id. A Parquet manifest may contain the image files themselves. A bad row or file becomes a `SourceProblem`; only a
source that cannot be read at all raises an error.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from training.data.entries import Entry, SourceImage, SourceProblem
from training.data.extracted import store_temporarily
from training.data.manifests import StoreFile, is_inside, path_fault, read_manifest
from training.data.rows import MANIFESTS
from training.data.texts import id_fault, visible
from training.errors import SourceError

__all__ = [
    "MANIFESTS", "Entry", "MaskSource", "SourceImage", "SourceProblem", "read_all", "read_images", "read_source",
]  # fmt: skip

MaskSource = Literal["column", "alpha", "border", "finder", "grabcut"]  # see `training.data.masks`


def read_source(source: Path, *, store: StoreFile = store_temporarily) -> Iterator[Entry]:
    """Read a folder or manifest, in a fixed order.

    Args:
        store: stores the bytes of image files that a manifest contains.

    Raises:
        SourceError: the source is missing, has an unknown type, lacks a column or cannot be parsed; raised by the call
            itself, not by the iterator.
    """
    source = Path(source)
    if fault := path_fault(os.path.realpath(source)):
        raise SourceError(f"{visible(str(source))}: the path {fault}")
    if source.is_dir():
        return _read_folder(source)
    if not source.exists():
        raise SourceError(f"{source}: no such folder or manifest")
    if source.suffix.lower() not in MANIFESTS:
        raise SourceError(f"{source}: expected a folder or a manifest named {', '.join('*' + s for s in MANIFESTS)}")
    return read_manifest(source, store)


def read_images(source: Path) -> tuple[list[SourceImage], list[SourceProblem]]:
    """All images and all problems of a source."""
    images: list[SourceImage] = []
    problems: list[SourceProblem] = []
    for entry in read_source(source):
        if isinstance(entry, SourceImage):
            images.append(entry)
        else:
            problems.append(entry)
    return images, problems


def read_all(sources: Sequence[Path]) -> tuple[list[SourceImage], list[SourceProblem]]:
    """Several sources as one; an item_id that occurs in several sources is prefixed with their number and name."""
    read = [read_images(source) for source in sources]
    seen = Counter(item_id for images, _ in read for item_id in {image.item_id for image in images})
    images = []
    for number, (source, (found, _)) in enumerate(zip(sources, read, strict=True), start=1):
        for image in found:
            clashes = seen[image.item_id] > 1
            images.append(replace(image, item_id=f"{number}-{source.stem}/{image.item_id}") if clashes else image)
    return images, [problem for _, problems in read for problem in problems]


def _read_folder(root: Path) -> Iterator[Entry]:
    base = os.path.realpath(root)
    pending = [(base, "")]
    while pending:
        folder, relative = pending.pop()
        try:
            with os.scandir(folder) as listing:
                children = sorted(listing, key=lambda entry: entry.name)
        except OSError as exc:
            yield SourceProblem(
                folder, f"the folder cannot be read ({exc.strerror})", relative.rstrip("/"), folder, True
            )
            continue
        folders = []
        attributes = {"category": relative.rstrip("/")} if relative else {}
        for child in children:
            if child.name.startswith("."):
                continue
            name = f"{relative}{child.name}"
            try:
                is_folder = child.is_dir()
            except OSError as exc:  # such as a symbolic link to itself
                yield SourceProblem(child.path, f"cannot be read ({exc.strerror})", name, child.path, True)
                continue
            if child.is_symlink() and not is_inside(os.path.realpath(child.path), base):
                reason = "the link points outside the source folder"
                yield SourceProblem(child.path, reason, name, child.path, is_folder)
            elif not is_folder:
                yield _folder_image(child.path, name, attributes)
            elif not child.is_symlink():
                folders.append((child.path, name + "/"))
        pending.extend(reversed(folders))


def _folder_image(path: str, name: str, attributes: dict[str, str]) -> Entry:
    if fault := path_fault(name):
        return SourceProblem(name, f"the file name {fault}", None, name)
    if fault := id_fault(name):
        return SourceProblem(name, f"the item_id, which is the file's path, {fault}", name, name)
    return SourceImage(item_id=name, file=path, attributes=attributes, where=name)
