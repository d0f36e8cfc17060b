"""Sheets of drawings as SVG or PNG, and a single drawing as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from training.errors import OutputError
from training.files import publish_file
from training.sketches.raster import draw_strokes, placed
from training.sketches.strokes import Points

SIDE = 96  # of a cell in pixels
GAP, TEXT = 6, 11
PEN = 2.0  # width of lines in pixels
KINDS = (".svg", ".png")


@dataclass(frozen=True)
class Cell:
    """A drawing in a sheet, with the text under it; `box` is as for `draw_strokes`."""

    strokes: Sequence[Points]
    caption: str = ""
    box: float | None = None


def drawing_svg(strokes: Sequence[Points], *, side: float = 256.0, width: float = 3.0) -> str:
    """A drawing as an SVG file of its own, centred in a square of `side` units."""
    return _document(side, side, [f'<g stroke-width="{width:g}">{_paths(strokes, side)}</g>'])


def sheet_svg(rows: Sequence[Sequence[Cell]]) -> str:
    """Rows of cells as an SVG file."""
    down = _row_height(rows)
    width = GAP + max(len(row) for row in rows) * (SIDE + GAP)
    parts = [f'<g stroke-width="{PEN:g}">']
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            x, y = GAP + j * (SIDE + GAP), GAP + i * down
            inside = _paths(cell.strokes, SIDE, cell.box) + _text(cell.caption)
            parts.append(f'<g transform="translate({x} {y})">{inside}</g>')
    return _document(width, GAP + len(rows) * down, [*parts, "</g>"])


def write_sheet(rows: Sequence[Sequence[Cell]], out: Path) -> Path:
    """Write rows of cells to an `.svg` or `.png` file.

    Raises:
        OutputError: the file has another suffix.
    """
    check_sheet(out)
    if out.suffix.lower() == ".svg":
        return publish_file(out, sheet_svg(rows).encode())
    import torch

    from training.fitting.pictures import encode_png
    from training.gallery import Row, draw_sheet

    drawn = []
    for row in rows:
        pictures = np.stack([draw_strokes(cell.strokes, SIDE, width=PEN, box=cell.box) for cell in row])
        captions = [cell.caption for cell in row]
        drawn.append(Row("", torch.from_numpy(pictures)[:, None] / 255.0, captions if any(captions) else []))
    return publish_file(out, encode_png(draw_sheet(drawn)))


def check_sheet(out: Path) -> None:
    """OutputError unless a sheet can have this name."""
    if out.suffix.lower() not in KINDS:
        raise OutputError(f"{out}: expected a file named {' or '.join('*' + kind for kind in KINDS)}")


def _row_height(rows: Sequence[Sequence[Cell]]) -> int:
    return SIDE + GAP + (TEXT + GAP if any(cell.caption for row in rows for cell in row) else 0)


def _document(width: float, height: float, parts: Sequence[str]) -> str:
    style = 'fill="none" stroke="#000" stroke-linecap="round" stroke-linejoin="round"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" style="background:#fff">'
        f"<g {style}>{''.join(parts)}</g></svg>\n"
    )


def _paths(strokes: Sequence[Points], side: float, box: float | None = None) -> str:
    """One path per stroke; a single point becomes a line of no length, which the round caps make a dot."""
    if not any(len(stroke) for stroke in strokes):
        return ""
    paths = []
    for stroke in placed(strokes, side, box):
        points = [*stroke, stroke[0]] if len(stroke) == 1 else stroke
        paths.append(f'<path d="M{" L".join(f"{x:.2f},{y:.2f}" for x, y in points)}"/>')
    return "".join(paths)


def _text(caption: str) -> str:
    if not caption:
        return ""
    attributes = f'y="{SIDE + TEXT}" font-size="{TEXT}" font-family="sans-serif" fill="#555" stroke="none"'
    return f"<text {attributes}>{escape(caption)}</text>"
