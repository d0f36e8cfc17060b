"""Read a SOURCE of drawings: an `.npz` or `.ndjson` file, an `.svg` file, or a folder of those.

    .npz      arrays `PART_strokes` (N, 3), the rows (dx, dy, pen lifted) of all drawings of a part such as `train`, and
              `PART_offsets` (n + 1,), where each drawing begins; nothing pickled
    .ndjson   QuickDraw's: one JSON object per line, whose `drawing` is a list of strokes [[x, ...], [y, ...]]; `word`
              becomes the category, and `key_id` the item_id
    .svg      one drawing

A drawing that cannot be used becomes a `SourceProblem`; only a source that cannot be read at all raises an error.
Imports no torch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from training.data.entries import SourceProblem
from training.data.texts import id_fault
from training.errors import DrawingError, SourceError
from training.sketches.npz import read_parts
from training.sketches.strokes import Strokes, from_stroke3
from training.sketches.svg import MAX_BYTES as MAX_SVG_BYTES
from training.sketches.svg import read_svg

KINDS = (".npz", ".ndjson", ".svg")
TRAINING_PARTS = ("train", "valid")  # of an `.npz` file; `test` is left for evaluation
MAX_LINE = 2**22  # characters of a drawing in an .ndjson file


@dataclass(frozen=True, slots=True)
class SourceDrawing:
    """One drawing, as its source has it.

    Args:
        strokes: points `(n, 2)` of each stroke, in the source's unit.
        where: file, and line or row, of the drawing.
    """

    item_id: str
    strokes: Strokes
    attributes: dict[str, str] = field(default_factory=dict)
    where: str = ""

    @property
    def category(self) -> str | None:
        return self.attributes.get("category")


DrawingEntry = SourceDrawing | SourceProblem


def read_drawings(
    source: Path, *, parts: Sequence[str] | None = None
) -> tuple[list[SourceDrawing], list[SourceProblem]]:
    """All drawings and all problems of a source, in a fixed order.

    Args:
        parts: of an `.npz` file, such as `train`; None reads all of them.

    Raises:
        SourceError: the source is missing, of an unknown type, or cannot be read at all.
    """
    drawings: list[SourceDrawing] = []
    problems: list[SourceProblem] = []
    for entry in _entries(Path(source), parts):
        if isinstance(entry, SourceDrawing):
            drawings.append(entry)
        else:
            problems.append(entry)
    return drawings, problems


def read_all_drawings(
    sources: Sequence[Path], *, parts: Sequence[str] | None = None
) -> tuple[list[SourceDrawing], list[SourceProblem]]:
    """Several sources as one; an item_id that occurs in several sources is prefixed with their number and name."""
    read = [read_drawings(source, parts=parts) for source in sources]
    seen = Counter(item_id for drawings, _ in read for item_id in {each.item_id for each in drawings})
    drawings = []
    for number, (source, (found, _)) in enumerate(zip(sources, read, strict=True), start=1):
        for each in found:
            name = f"{number}-{source.stem}/{each.item_id}"
            drawings.append(replace(each, item_id=name) if seen[each.item_id] > 1 else each)
    return drawings, [problem for _, problems in read for problem in problems]


def _entries(source: Path, parts: Sequence[str] | None) -> Iterator[DrawingEntry]:
    readers: dict[str, Callable[[Path], Iterator[DrawingEntry]]] = {
        ".npz": lambda path: _npz(path, parts),
        ".ndjson": _ndjson,
        ".svg": lambda path: _svg(path, path.name, {}),
    }
    if source.is_dir():
        yield from _folder(source, readers)
    elif not source.exists():
        raise SourceError(f"{source}: no such file or folder of drawings")
    elif source.suffix.lower() not in KINDS:
        raise SourceError(f"{source}: expected drawings: a folder, or a file named {', '.join('*' + k for k in KINDS)}")
    else:
        yield from readers[source.suffix.lower()](source)


def _folder(root: Path, readers: dict[str, Callable[[Path], Iterator[DrawingEntry]]]) -> Iterator[DrawingEntry]:
    """The files of a folder; the sub-folder of an `.svg` file is its category, as for images."""
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        if path.suffix.lower() not in KINDS:
            yield SourceProblem(name, f"not a drawing; expected {', '.join('*' + kind for kind in KINDS)}", name)
        elif path.suffix.lower() == ".svg":
            folder = name.rpartition("/")[0]
            yield from _svg(path, name, {"category": folder} if folder else {})
        else:
            try:
                yield from readers[path.suffix.lower()](path)
            except SourceError as exc:
                yield SourceProblem(name, str(exc), None, name, hides=True)


def _npz(path: Path, parts: Sequence[str] | None) -> Iterator[DrawingEntry]:
    for part, drawings in read_parts(path, parts):
        for number, rows in enumerate(drawings):
            where = f"{path.name}: {part} {number}"
            if isinstance(rows, str):
                yield SourceProblem(where, rows, f"{part}/{number}")
            else:
                yield SourceDrawing(f"{path.stem}/{part}/{number}", from_stroke3(rows), {}, where)


def _ndjson(path: Path) -> Iterator[DrawingEntry]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                where = f"{path.name}: line {number}"
                if len(line) > MAX_LINE:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_LINE)
                    yield SourceProblem(where, f"longer than {MAX_LINE:,} bytes")
                elif line.strip():
                    yield _of_json(line, where, f"{path.stem}/{number}")
    except OSError as exc:
        raise SourceError(f"{path}: cannot be read ({exc.strerror})") from exc


def _of_json(line: bytes, where: str, item_id: str) -> DrawingEntry:
    try:
        value = json.loads(line)
        if not isinstance(value, dict):
            raise DrawingError(f"expected a JSON object, found {type(value).__name__}")
        strokes = strokes_of_json(value.get("drawing"))
    except RecursionError:
        return SourceProblem(where, "nested too deeply", item_id)
    except (DrawingError, ValueError) as exc:
        return SourceProblem(where, f"not a drawing ({exc})", item_id)
    name, word = str(value.get("key_id") or item_id), value.get("word")
    if fault := id_fault(name):
        return SourceProblem(where, f"the key_id {fault}", name)
    attributes = {"category": word} if isinstance(word, str) and word else {}
    return SourceDrawing(name, strokes, attributes, where)


def strokes_of_json(drawing: Any) -> Strokes:
    """The strokes of QuickDraw's JSON, `[[[x, ...], [y, ...]], ...]`; a third list, of times, is not read.

    Raises:
        DrawingError: it is not of this form; the message names the stroke.
    """
    if not isinstance(drawing, list) or not drawing:
        raise DrawingError("drawing must be a list of strokes [[x, ...], [y, ...]]")
    strokes: Strokes = []
    for number, stroke in enumerate(drawing, start=1):
        axes = stroke[:2] if isinstance(stroke, list) else []
        if len(axes) < 2 or not all(isinstance(axis, list) for axis in axes) or len(axes[0]) != len(axes[1]):
            raise DrawingError(f"stroke {number} must be two lists of as many numbers, [[x, ...], [y, ...]]")
        if not all(type(value) in (int, float) for axis in axes for value in axis):
            raise DrawingError(f"stroke {number} has a coordinate that is not a number")
        try:
            strokes.append(np.array(axes, dtype=np.float64).T)
        except OverflowError as exc:
            raise DrawingError(f"stroke {number} has a coordinate that is not a number of at most 1e9") from exc
    return strokes


def _svg(path: Path, name: str, attributes: dict[str, str]) -> Iterator[DrawingEntry]:
    if fault := id_fault(name):
        yield SourceProblem(name, f"the item_id, which is the file's path, {fault}", name)
        return
    try:
        with path.open("rb") as file:
            yield SourceDrawing(name, read_svg(file.read(MAX_SVG_BYTES + 1)), attributes, name)
    except OSError as exc:
        yield SourceProblem(name, f"cannot be read ({exc.strerror})", name)
    except DrawingError as exc:
        yield SourceProblem(name, str(exc), name)
