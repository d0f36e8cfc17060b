"""Pictures of drawings: anti-aliased lines, drawn by Pillow at a multiple of the size. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.sketches.strokes import Points, extent, fitted

Picture = NDArray[np.uint8]
OVERSAMPLING = 4
MARGIN = 0.08  # of the side, around a drawing


def draw_strokes(strokes: Sequence[Points], size: int = 96, *, width: float = 2.0, box: float | None = None) -> Picture:
    """A drawing `(size, size)` uint8, black on white.

    Args:
        strokes: in any unit; the drawing is centred.
        width: of the lines in pixels.
        box: side that fills the picture, in the strokes' unit; None fits the drawing. Larger drawings are fitted too.
    """
    side = size * OVERSAMPLING
    image = Image.new("L", (side, side), 255)
    if any(len(stroke) for stroke in strokes):
        paint, pen = ImageDraw.Draw(image), width * OVERSAMPLING
        for stroke in placed(strokes, side, box):
            _draw_line(paint, stroke, pen)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


def placed(strokes: Sequence[Points], side: float, box: float | None = None) -> list[Points]:
    """The drawing centred in a square, with a margin; `box` as for `draw_strokes`."""
    whole = extent(strokes) if box is None else max(box, extent(strokes))
    inside = fitted(strokes, side * (1.0 - 2.0 * MARGIN), whole)
    corner = np.concatenate(inside).max(axis=0)
    return [stroke + 0.5 * (side - corner) for stroke in inside]


def _draw_line(paint: ImageDraw.ImageDraw, stroke: Points, pen: float) -> None:
    """A stroke with round joints and ends."""
    corners = [(float(x), float(y)) for x, y in stroke]
    if len(corners) > 1:
        paint.line(corners, fill=0, width=max(1, round(pen)))
    radius = 0.5 * pen
    for x, y in corners:
        paint.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
