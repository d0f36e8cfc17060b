"""Turn the rows of a manifest into images of items; every text passes the boundary of `training.data.texts`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from training.data.cells import CellError, cell_text, kind_of, name_text
from training.data.entries import Entry, SourceImage, SourceProblem
from training.data.rows import OWN_COLUMNS, read_rows
from training.data.texts import MAX_TEXT, id_fault, text_fault

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?=//)|data:")


class StoredFile(NamedTuple):
    """A file that was contained in a manifest: where it is stored now, and its name in a catalogue."""

    path: Path
    uri: str | None = None


StoreFile = Callable[[bytes], StoredFile]


class _RowFault(ValueError):
    """Why a row cannot become an image."""


def read_manifest(source: Path, store: StoreFile) -> Iterator[Entry]:
    """Read a manifest.

    Args:
        store: stores the bytes of a file that a row contains.

    Raises:
        SourceError: see `read_rows`; raised by the call itself.
    """
    rows = read_rows(source)
    # Read the first row now, so that a broken header raises in the call and not in the first `next`.
    first = next(rows, None)
    reader = _Reader(source.name, os.path.realpath(source.parent), store, {})
    return (reader.read(*row) for part in ([first] if first else [], rows) for row in part)


@dataclass
class _Reader:
    name: str
    base: str
    store: StoreFile
    seen: dict[tuple[str, str], str]  # the row of each pair of item_id and image

    def read(self, number: int, fields: dict[str, Any] | str) -> Entry:
        where = f"{self.name} row {number}"
        if isinstance(fields, str):
            return SourceProblem(where, fields, hides=True)
        item_id = image = None
        try:
            item_id = _name(fields, "item_id")
            image = _quoted(fields.get("image"))
            entry = self._image(where, item_id or "", fields)
        except (_RowFault, RecursionError) as exc:
            return SourceProblem(where, str(exc), item_id, image, item_id is None)
        earlier = self.seen.setdefault((entry.item_id, entry.file), where)
        if earlier != where:
            reason = f"{earlier} has the same item_id and image; keep one of the rows"
            return SourceProblem(where, reason, entry.item_id, entry.stored_as)
        return entry

    def _image(self, where: str, item_id: str, fields: dict[str, Any]) -> SourceImage:
        if fault := id_fault(item_id):
            raise _RowFault(f"item_id {fault}")
        title = _text("title", fields.get("title"))
        attributes = {}
        for name, value in fields.items():
            if name and name not in OWN_COLUMNS and (text := _text(name, value)) is not None:
                attributes[name] = text
        image = self._file("image", fields.get("image"))
        if image is None:
            raise _RowFault("image is empty; expected a path relative to the manifest")
        mask = self._file("mask", fields.get("mask"))
        path, uri = mask if mask is not None else (None, None)
        return SourceImage(item_id, str(image.path), title, attributes, path, where, image.uri, uri)

    def _file(self, column: str, value: Any) -> StoredFile | None:
        """The file of a cell: a path, bytes, or the object of bytes and path of Hugging Face's `datasets`."""
        if isinstance(value, dict):
            unknown = sorted(set(map(str, value)) - {"bytes", "path"})
            if unknown:
                raise _RowFault(f"{column} is an object with {unknown[0]!r}; expected bytes and path")
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        if isinstance(value, bytes):
            return self.store(value)
        text = _converted(column, value, cell_text)
        if text is None:
            return None
        if not isinstance(value, str):
            raise _RowFault(f"{column} must be a path; found {kind_of(value)}")
        return StoredFile(self._path(column, text))

    def _path(self, column: str, text: str) -> Path:
        if fault := text_fault(text):
            raise _RowFault(f"{column} {fault}")
        if URL.match(text):
            raise _RowFault(f"{column} is a URL; URLs are not fetched: download the file and give its path")
        path = Path(os.path.realpath(os.path.join(self.base, text)))
        if not is_inside(path, self.base):
            raise _RowFault(f"{column} {text!r} lies outside the manifest's folder")
        if fault := path_fault(path):
            raise _RowFault(f"{column} {text!r} leads to a path that {fault}")
        return path


def _name(fields: dict[str, Any], column: str) -> str | None:
    return _converted(column, fields.get(column), name_text)


def _converted(column: str, value: Any, convert: Callable[[Any], str | None]) -> str | None:
    """The text of a cell; raises `_RowFault` if it has none."""
    try:
        return convert(value)
    except CellError as exc:
        raise _RowFault(f"{column} {exc}") from exc


def _quoted(value: Any) -> str | None:
    """The image of a row as it is quoted in a report."""
    if isinstance(value, dict):
        value = value.get("path")
    return value if isinstance(value, str) and value.strip() else None


def _text(name: str, value: Any) -> str | None:
    """A title or attribute as text; raises for one that cannot be stored."""
    if fault := text_fault(name):
        raise _RowFault(f"the attribute name {name!r} {fault}")
    text = _converted(name, value, cell_text)
    if text is None:
        return None
    if len(text) > MAX_TEXT:
        raise _RowFault(f"{name} has {len(text)} characters; the limit is {MAX_TEXT}")
    if fault := text_fault(text, lines=True):
        raise _RowFault(f"{name} {fault}")
    return text


def path_fault(path: Path | str) -> str | None:
    """Why the path of a file cannot be stored: its bytes on disk are not UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return "is not valid UTF-8; rename it"
    return None


def is_inside(path: Path | str, base: str) -> bool:
    return str(path) == base or str(path).startswith(base.rstrip(os.sep) + os.sep)
