"""Read a SOURCE of images: a folder, or a `.csv`, `.jsonl` or `.parquet` manifest.

A folder has one item per file: the path is its item_id and the sub-folder its category. A manifest has the columns
`item_id,image[,mask,title,category,...]`; image paths are relative to the manifest, and several rows may share an
item_id. A bad row becomes a `SourceProblem`; only a source that cannot be read at all raises an error.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TextIO

from training.errors import SourceError
from training.extras import extras

MANIFESTS = (".csv", ".jsonl", ".parquet")
OWN_COLUMNS = ("item_id", "image", "mask", "title")
MAX_ITEM_ID = 512
MaskSource = Literal["column", "alpha", "border", "finder", "grabcut"]  # see `training.data.masks`


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of one item, as described by its source; the image file has not been read yet."""

    item_id: str
    path: Path
    title: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    mask: Path | None = None
    where: str = ""

    @property
    def category(self) -> str | None:
        return self.attributes.get("category")


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """A row or file that cannot become a `SourceImage`: where it is, and how to correct it."""

    where: str
    reason: str
    item_id: str | None = None
    image: str | None = None


Entry = SourceImage | SourceProblem


def read_source(source: Path) -> Iterator[Entry]:
    """Read a folder or manifest, in a fixed order.

    Raises:
        SourceError: the source is missing, has an unknown type, lacks a column or cannot be parsed; raised by the call
            itself, not by the iterator.
    """
    source = Path(source)
    if source.is_dir():
        return _read_folder(source)
    if not source.exists():
        raise SourceError(f"{source}: no such folder or manifest")
    if source.suffix.lower() not in MANIFESTS:
        raise SourceError(f"{source}: expected a folder or a manifest named {', '.join('*' + s for s in MANIFESTS)}")
    return _read_manifest(source)


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
            yield SourceProblem(where=folder, reason=f"the folder cannot be read ({exc.strerror})")
            continue
        folders = []
        for child in children:
            if child.name.startswith("."):
                continue
            name = f"{relative}{child.name}"
            if child.is_symlink() and not _is_inside(Path(os.path.realpath(child.path)), base):
                yield SourceProblem(child.path, "the link points outside the source folder", name, child.path)
            elif child.is_dir():
                if not child.is_symlink():
                    folders.append((child.path, name + "/"))
            else:
                yield _folder_image(child.path, name, relative)
        pending.extend(reversed(folders))


def _folder_image(path: str, name: str, relative: str) -> Entry:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        printable = os.fsencode(name).decode("utf-8", "replace")
        return SourceProblem(printable, "the file name is not valid UTF-8; rename it", None, printable)
    attributes = {"category": relative.rstrip("/")} if relative else {}
    return SourceImage(item_id=name, path=Path(path), attributes=attributes, where=name)


def _read_manifest(source: Path) -> Iterator[Entry]:
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
    rows = readers[source.suffix.lower()](source)
    # Read the first row now, so that a broken header raises in the call and not in the first `next`.
    first = next(rows, None)
    return _check_rows(source, first, rows)


Row = tuple[int, dict[str, Any] | str]  # (number, fields) or (number, the fault of the row)


def _check_rows(source: Path, first: Row | None, rows: Iterator[Row]) -> Iterator[Entry]:
    base = os.path.realpath(source.parent)
    seen: dict[tuple[str, Path], str] = {}

    def checked(row: Row) -> Entry:
        number, fields = row
        where = f"{source.name} row {number}"
        if isinstance(fields, str):
            return SourceProblem(where, fields)
        entry = _row_to_image(where, fields, base)
        if isinstance(entry, SourceProblem):
            return entry
        earlier = seen.setdefault((entry.item_id, entry.path), where)
        if earlier != where:
            reason = f"{earlier} has the same item_id and image; keep one of the rows"
            return SourceProblem(where, reason, entry.item_id, str(entry.path))
        return entry

    if first is not None:
        yield checked(first)
    for row in rows:
        yield checked(row)


def _row_to_image(where: str, fields: dict[str, Any], base: str) -> Entry:
    item_id = _text(fields.get("item_id"))
    image = _text(fields.get("image"))
    if not item_id:
        return SourceProblem(where, "item_id is empty; every row needs one", None, image)
    if len(item_id) > MAX_ITEM_ID or not item_id.isprintable():
        return SourceProblem(where, f"item_id must be at most {MAX_ITEM_ID} printable characters", item_id[:80], image)
    if not image:
        return SourceProblem(where, "image is empty; expected a path relative to the manifest", item_id)
    paths = {}
    for column in ("image", "mask"):
        text = _text(fields.get(column))
        if text is None:
            continue
        if "\0" in text:
            return SourceProblem(where, f"{column} contains a NUL character; remove it", item_id)
        path = Path(os.path.realpath(os.path.join(base, text)))
        if not _is_inside(path, base):
            return SourceProblem(where, f"{column} {text!r} lies outside the manifest's folder", item_id, text)
        paths[column] = path
    attributes = {
        name: text for name, value in fields.items() if name not in OWN_COLUMNS and (text := _text(value)) is not None
    }
    title = _text(fields.get("title"))
    return SourceImage(item_id, paths["image"], title, attributes, paths.get("mask"), where)


def _text(value: Any) -> str | None:
    """A cell as text; None for an empty one."""
    if value is None:
        return None
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def _is_inside(path: Path, base: str) -> bool:
    return str(path) == base or str(path).startswith(base.rstrip(os.sep) + os.sep)


def _require_columns(source: Path, columns: list[str]) -> None:
    missing = [name for name in ("item_id", "image") if name not in columns]
    if missing:
        found = ", ".join(columns) or "none"
        raise SourceError(f"{source}: column {missing[0]!r} is missing; expected item_id,image[,...], found {found}")
    doubled = {name for name in columns if columns.count(name) > 1}
    if doubled:
        raise SourceError(f"{source}: column {sorted(doubled)[0]!r} occurs twice; name each column once")


def _open_text(source: Path) -> TextIO:
    try:
        return source.open(encoding="utf-8-sig", newline="")
    except OSError as exc:
        raise SourceError(f"{source}: cannot be read ({exc.strerror})") from exc


def _csv_rows(source: Path) -> Iterator[Row]:
    with _open_text(source) as file:
        try:
            reader = csv.reader(file, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            _require_columns(source, columns)
            for cells in reader:
                number = reader.line_num
                if not cells:
                    continue
                if len(cells) != len(columns):
                    yield number, f"the row has {len(cells)} cells, but the header has {len(columns)}"
                else:
                    yield number, dict(zip(columns, cells, strict=True))
        except csv.Error as exc:
            raise SourceError(f"{source}: line {reader.line_num} is not valid CSV ({exc})") from exc
        except UnicodeDecodeError as exc:
            raise SourceError(f"{source}: not UTF-8 text ({exc.reason} at byte {exc.start}); save it as UTF-8") from exc


def _jsonl_rows(source: Path) -> Iterator[Row]:
    checked = False
    with _open_text(source) as file:
        try:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    fields = json.loads(line)
                except (json.JSONDecodeError, RecursionError) as exc:
                    yield number, f"not valid JSON ({exc})"
                    continue
                if not isinstance(fields, dict):
                    yield number, f"expected a JSON object, found {type(fields).__name__}"
                    continue
                if not checked:
                    _require_columns(source, list(fields))
                    checked = True
                yield number, fields
        except UnicodeDecodeError as exc:
            raise SourceError(f"{source}: not UTF-8 text ({exc.reason} at byte {exc.start}); save it as UTF-8") from exc


def _parquet_rows(source: Path) -> Iterator[Row]:
    with extras(f"{source}: reading a Parquet file"):
        import pyarrow
        import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(source)
    except (pyarrow.ArrowException, OSError) as exc:
        raise SourceError(f"{source}: not a Parquet file ({exc})") from exc
    _require_columns(source, list(file.schema_arrow.names))
    number = 0
    try:
        for batch in file.iter_batches():
            for fields in batch.to_pylist():
                number += 1
                yield number, fields
    except (pyarrow.ArrowException, OSError) as exc:
        raise SourceError(f"{source}: row group after row {number} is damaged ({exc})") from exc
