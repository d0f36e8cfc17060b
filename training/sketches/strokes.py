"""Conversions between a drawing's strokes and the stroke-3 and stroke-5 formats, and its simplification.

Ha, Eck: A Neural Representation of Sketch Drawings, 2017, https://arxiv.org/abs/1704.03477, section 3.1. Imports no
torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (n, 2)
Strokes = list[Points]
END = 4  # column of p3 in stroke-5


def to_stroke3(strokes: Sequence[Points]) -> Points:
    """Rows (dx, dy, pen lifted after this point) `(N, 3)`; the first offset is 0, as drawings have no place."""
    points = np.concatenate([*strokes, np.empty((0, 2))])
    lifted = np.zeros(len(points))
    lifted[np.cumsum([len(stroke) for stroke in strokes], dtype=np.intp) - 1] = 1.0
    return np.column_stack([np.diff(points, axis=0, prepend=points[:1]), lifted])


def from_stroke3(rows: NDArray[np.generic]) -> Strokes:
    """Strokes of rows `(N, 3)`, from the origin on; the last stroke ends with the last row."""
    offsets = np.asarray(rows[:, :2], dtype=np.float64)
    ends = np.flatnonzero(rows[:-1, 2]) + 1
    return [part for part in np.split(np.cumsum(offsets, axis=0), ends) if len(part)]


def to_stroke5(stroke3: Points, longest: int) -> Points:
    """Rows (dx, dy, p1, p2, p3) `(longest, 5)`: the points of rows `(N, 3)`, N below `longest`, and the end."""
    if len(stroke3) >= longest:
        raise ValueError(f"a drawing of {len(stroke3)} points needs {len(stroke3) + 1} rows, more than {longest}")
    rows = np.zeros((longest, 5))
    count = len(stroke3)
    rows[:count, :2] = stroke3[:, :2]
    rows[:count, 3] = stroke3[:, 2]
    rows[:count, 2] = 1.0 - stroke3[:, 2]
    rows[count:, END] = 1.0
    return rows


def from_stroke5(rows: NDArray[np.floating[Any]]) -> Points:
    """Stroke-3 rows `(N_s, 3)` of rows `(N_max, 5)`: those before the first with p3 = 1."""
    ended = np.flatnonzero(rows[:, END] > 0.5)
    kept = rows[: ended[0]] if len(ended) else rows
    return np.asarray(kept[:, (0, 1, 3)], dtype=np.float64)


def simplify(points: Points, epsilon: float) -> Points:
    """The points of a stroke `(n, 2)` that Ramer-Douglas-Peucker keeps: no point is further than epsilon from them.

    Douglas, Peucker: Algorithms for the reduction of the number of points required to represent a digitized line or its
    caricature, 1973, https://doi.org/10.3138/FM57-6770-U75U-7727. Distances are to segments, and not to the lines
    through them, so that closed strokes keep their shape.
    """
    plane = points[:, 0] + 1j * points[:, 1]
    kept = np.zeros(len(points), dtype=bool)
    kept[[0, -1]] = True
    pending = [(0, len(points) - 1)]
    while pending:
        first, last = pending.pop()
        if last - first < 2:
            continue
        distances: Points = _to_segment(plane[first + 1 : last], complex(plane[first]), complex(plane[last]))
        furthest = int(distances.argmax())
        if float(distances[furthest]) > epsilon:
            middle = first + 1 + furthest
            kept[middle] = True
            pending += [(first, middle), (middle, last)]
    simpler: Points = points[kept]
    return simpler


def extent(strokes: Sequence[Points]) -> float:
    """The longer side of a drawing's bounding box."""
    points = np.concatenate(list(strokes))
    return float((points.max(axis=0) - points.min(axis=0)).max())


def fitted(strokes: Sequence[Points], side: float, box: float | None = None) -> Strokes:
    """The drawing scaled so that `box` becomes `side`, with the top left corner of its bounding box at the origin.

    Args:
        box: None for the longer side of its bounding box.
    """
    corner = np.concatenate(list(strokes)).min(axis=0)
    whole = extent(strokes) if box is None else box
    return [(stroke - corner) * (side / whole if whole > 0 else 1.0) for stroke in strokes]


def without_repeats(stroke: Points) -> Points:
    """A stroke without points that equal the one before."""
    moved = np.any(np.diff(stroke, axis=0) != 0, axis=1)
    kept: Points = stroke[np.concatenate([[True], moved])]
    return kept


def _to_segment(points: NDArray[np.complex128], start: complex, end: complex) -> Points:
    """Distances `(n,)` of points x + iy to a segment."""
    along, reached = end - start, points - start
    squared = abs(along) ** 2
    if squared > 0:
        share = (reached * along.conjugate()).real / squared
        reached = reached - np.minimum(np.maximum(share, 0.0), 1.0) * along
    distances: Points = np.abs(reached)
    return distances


def beginning(strokes: Sequence[Points], share: float) -> Strokes:
    """The first points of a drawing, at least one: a share of all of them."""
    left = max(1, round(share * sum(len(stroke) for stroke in strokes)))
    found: Strokes = []
    for stroke in strokes:
        if left <= 0:
            break
        found.append(stroke[:left])
        left -= len(stroke)
    return found
