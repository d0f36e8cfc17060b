"""The rows of a `.csv`, `.jsonl` or `.parquet` file: one that cannot be read is reported, and the others are read."""

from __future__ import annotations

import codecs
import csv
import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, TextIO

from training.data.texts import text_fault, visible
from training.errors import SourceError
from training.extras import extras

MANIFESTS = (".csv", ".jsonl", ".parquet")
OWN_COLUMNS = ("item_id", "image", "mask", "title")
REQUIRED = ("item_id", "image")
MAX_CSV_CELL = 2**20  # characters; a longer cell is a quote that was never closed
PARQUET_ROWS = 64  # rows in memory at a time where they contain files

DAMAGE = (OSError, ValueError, OverflowError, KeyError, TypeError)  # what pyarrow raises beside its own errors

Row = tuple[int, dict[str, Any] | str]  # (number, fields) or (number, the fault of the row)


def read_rows(source: Path) -> Iterator[Row]:
    """The numbered rows of a manifest; rows without any value and columns without a name are left out.

    Raises:
        SourceError: the file cannot be read, or no row has the columns item_id and image; raised before the first row.
    """
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
    return readers[source.suffix.lower()](source)


def _check_columns(source: Path, columns: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        found = ", ".join(columns) or "none"
        raise SourceError(f"{source}: column {missing[0]!r} is missing; expected item_id,image[,...], found {found}")
    counts = Counter(columns)
    for name in OWN_COLUMNS:
        if counts[name] > 1:
            raise SourceError(f"{source}: column {name!r} occurs twice; name it once")
    for name in columns:
        if fault := text_fault(name):
            raise SourceError(f"{source}: the column name {name!r} {fault}")


def _distinct(names: Iterable[str]) -> list[str]:
    """Column names of which none occurs twice: a second `tags` becomes `tags (2)`; empty names stay."""
    taken: set[str] = set()
    found = []
    for name in names:
        number, free = 2, name
        while free in taken and name:
            number, free = number + 1, f"{name} ({number})"
        taken.add(free)
        found.append(free)
    return found


def _open_text(source: Path) -> TextIO:
    """Open UTF-8 text; a byte that is not UTF-8 is read as a lone surrogate, for which its row is rejected."""
    try:
        with source.open("rb") as file:
            start = file.read(4)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise SourceError(f"{source}: not UTF-8 text (it starts like UTF-16); save it as UTF-8")
        return source.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as exc:
        raise SourceError(f"{source}: cannot be read ({exc.strerror})") from exc


class _Lines(Iterator[str]):
    """The lines of a file, which remembers those of the current row so that they can be read again."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._again: deque[str] = deque()
        self._row: list[str] = []
        self.number = 0

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._file)
        self.number += 1
        self._row.append(line)
        return line

    def start_row(self) -> None:
        self._row.clear()

    def skip_first_line(self) -> int:
        """Give back all lines of the current row but the first; returns the number of that one."""
        self.number -= len(self._row) - 1
        self._again.extendleft(reversed(self._row[1:]))
        return self.number


def _csv_rows(source: Path) -> Iterator[Row]:
    csv.field_size_limit(MAX_CSV_CELL)  # a setting of the process: the standard library has no other
    with _open_text(source) as file:
        lines = _Lines(file)
        rows = _csv_cells(lines)
        first = next(rows, (1, []))
        if isinstance(first[1], str):
            raise SourceError(f"{source}: line 1 is {first[1]}")
        names = [name.strip() for name in first[1]]
        _check_columns(source, [name for name in names if name])
        columns = _distinct(names)
        for number, cells in rows:
            if isinstance(cells, str):
                yield number, cells
            elif any(cell.strip() for cell in cells):
                yield number, _named(columns, cells)


def _csv_cells(lines: _Lines) -> Iterator[tuple[int, list[str] | str]]:
    """The rows as cells. After a faulty row, reading goes on with the line below its first one."""
    reader = csv.reader(lines, strict=True)
    while True:
        lines.start_row()
        try:
            cells = next(reader, None)
        except csv.Error as exc:
            yield lines.skip_first_line(), f"not valid CSV ({exc})"
            reader = csv.reader(lines, strict=True)
            continue
        if cells is None:
            return
        yield lines.number, cells


def _named(columns: list[str], cells: list[str]) -> dict[str, Any] | str:
    """The cells by column; cells without a column are left out if they are empty, or if the column has no name."""
    last = max(place for place, name in enumerate(columns) if name) + 1
    if len(cells) < last or any(cell.strip() for cell in cells[len(columns) :]):
        return f"the row has {len(cells)} cells, but the header has {len(columns)}"
    return {name: cell for name, cell in zip_longest(columns, cells, fillvalue="") if name}


def _jsonl_rows(source: Path) -> Iterator[Row]:
    """The objects of a file of JSON lines; the first complete one shows that the file is a manifest."""
    waiting: list[Row] | None = []
    columns: list[str] | None = None
    with _open_text(source) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            fields = _json_object(line)
            if isinstance(fields, dict) and not any(value not in (None, "") for value in fields.values()):
                continue
            if waiting is None:
                yield number, fields
                continue
            waiting.append((number, fields))
            if isinstance(fields, dict):
                columns = columns if columns is not None else list(fields)
                if all(name in fields for name in REQUIRED):
                    yield from waiting
                    waiting = None
    if columns is not None and waiting:
        _check_columns(source, columns)
    yield from waiting or ()


def _json_object(line: str) -> dict[str, Any] | str:
    if fault := text_fault(line, lines=True):
        return f"the line {fault}"
    try:
        fields = json.loads(line, object_pairs_hook=_json_pairs)
    except (ValueError, RecursionError) as exc:
        return f"not valid JSON ({exc})"
    return fields if isinstance(fields, dict) else f"expected a JSON object, found {type(fields).__name__}"


def _json_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        doubled = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"{doubled!r} occurs twice")
    return fields


def _parquet_rows(source: Path) -> Iterator[Row]:
    with extras(f"{source}: reading a Parquet file"):
        import pyarrow
        import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(source, buffer_size=2**20, pre_buffer=False)  # pages, not groups
        schema = file.schema_arrow
        columns = list(schema.names)
    except (*DAMAGE, pyarrow.ArrowException) as exc:
        raise SourceError(f"{source}: not a Parquet file ({visible(str(exc))})") from exc
    _check_columns(source, [name for name in columns if name])
    columns = _distinct(columns)
    has_files = any(_holds_bytes(kind) for kind in schema.types)
    size = PARQUET_ROWS if has_files else 1024 * PARQUET_ROWS
    number = 0
    for group in range(file.num_row_groups):
        start = number
        try:
            for batch in file.iter_batches(batch_size=size, row_groups=[group]):
                for fields in _parquet_objects(batch.rename_columns(columns)):
                    number += 1
                    if isinstance(fields, str) or any(value is not None for value in fields.values()):
                        yield number, fields
        except (*DAMAGE, pyarrow.ArrowException) as exc:
            end = start + file.metadata.row_group(group).num_rows
            yield number + 1, f"rows {number + 1} to {end} cannot be read ({exc})"
            number = end


def _holds_bytes(kind: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _parquet_objects(batch: Any) -> Iterator[dict[str, Any] | str]:
    """The rows of a batch; Python's times have microseconds, so finer ones are cut."""
    import pyarrow

    whole = pyarrow.RecordBatch.from_arrays([_in_microseconds(column) for column in batch.columns], batch.schema.names)
    try:
        rows = whole.to_pylist()
    except (*DAMAGE, pyarrow.ArrowException):
        rows = [_parquet_object(whole, place) for place in range(whole.num_rows)]
    for row in rows:
        yield row if isinstance(row, str) else {name: value for name, value in row.items() if name}


def _parquet_object(batch: Any, place: int) -> dict[str, Any] | str:
    """One row of a batch with a value that Python cannot represent, such as the year 20000."""
    import pyarrow

    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[place].as_py()
        except (*DAMAGE, pyarrow.ArrowException) as exc:
            return f"{name} cannot be read ({exc})"
    return row


def _in_microseconds(column: Any) -> Any:
    import pyarrow

    kind = column.type
    if pyarrow.types.is_timestamp(kind) and kind.unit == "ns":
        return column.cast(pyarrow.timestamp("us", kind.tz), safe=False)
    if pyarrow.types.is_duration(kind) and kind.unit == "ns":
        return column.cast(pyarrow.duration("us"), safe=False)
    return column.cast(pyarrow.time64("us"), safe=False) if kind == pyarrow.time64("ns") else column
