"""How a drawing becomes the rows that a model takes, stored with its encoder so that both always agree.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.errors import DrawingError, ImageError
from training.sketches.strokes import (
    MAX_POINTS,
    Points,
    Strokes,
    fitted,
    from_stroke3,
    from_stroke5,
    simplify,
    to_stroke3,
    to_stroke5,
    without_repeats,
)

if TYPE_CHECKING:
    from training.data.decode import Decoded

SIDE = 255.0  # of the box that drawings are fitted to, as in QuickDraw's simplified drawings
MAX_LONGEST = 1000  # rows
COARSER = 1.5  # growth of epsilon for a drawing with too many points


@dataclass(frozen=True)
class DrawingPreparation:
    """How the strokes of a drawing become rows `(longest, 5)`.

    A drawing is fitted to a box of 255 units and simplified; if it still has too many points, with a larger epsilon.
    Its offsets are divided by `scale`.

    Args:
        longest: N_max, 2 to 1000 rows.
        epsilon: of Ramer-Douglas-Peucker, in units of the box.
        scale: standard deviation of the offsets of the training drawings, in units of the box.
    """

    longest: int = 128
    epsilon: float = 2.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 2 <= self.longest <= MAX_LONGEST:
            raise ValueError(f"longest must be between 2 and {MAX_LONGEST} rows, not {self.longest}")
        if not 0.0 <= self.epsilon <= SIDE:
            raise ValueError(f"epsilon must be between 0 and {SIDE:g}, not {self.epsilon}")
        if not 0.0 < self.scale < float("inf"):
            raise ValueError(f"scale must be above 0, not {self.scale}")

    def simplified(self, strokes: Sequence[Points], box: float | None = None) -> Points:
        """Stroke-3 rows `(N, 3)` in units of the box, N below `longest`.

        Args:
            box: side of the box in the strokes' unit, for an unfinished drawing; None fits the drawing.

        Raises:
            DrawingError: the drawing has no strokes, too many of them, too many points, or one that is not finite.
        """
        drawing = fitted(checked(strokes), SIDE, box)
        fewest = sum(1 if len(stroke) == 1 else 2 for stroke in drawing)
        if fewest >= self.longest:
            raise DrawingError(
                f"has {len(drawing):,} strokes, which take at least {fewest:,} points; "
                f"the model takes up to {self.longest - 1:,}: draw fewer strokes"
            )
        epsilon = self.epsilon
        while True:
            simpler = [simplify(stroke, epsilon) for stroke in drawing]
            if sum(map(len, simpler)) < self.longest:
                return to_stroke3(simpler)
            epsilon = max(1.0, COARSER * epsilon)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a prepared drawing, `(longest, 5)`."""
        return (self.longest, 5)

    @property
    def least_side(self) -> int:
        """The height and width in pixels that a drawing should be decoded at, at least: its pixels are not used."""
        return 1

    def random(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Prepared drawings of one random stroke each `(count, longest, 5)`."""
        return np.stack([self.apply([rng.uniform(0.0, SIDE, (16, 2))]) for _ in range(count)])

    def of(self, decoded: Decoded) -> NDArray[np.float32]:
        """A decoded drawing, prepared `(longest, 5)`.

        Raises:
            ImageError: it is a photo, or not a usable drawing.
        """
        if decoded.strokes is None:
            raise ImageError("a photo cannot be compared with drawings; give an SVG file with the strokes of a drawing")
        try:
            return self.apply(decoded.strokes)
        except DrawingError as exc:
            raise ImageError(f"the drawing {exc}") from exc

    def apply(self, strokes: Sequence[Points], box: float | None = None) -> NDArray[np.float32]:
        """Rows `(longest, 5)`; `box` and errors are as for `simplified`."""
        rows = to_stroke5(self.simplified(strokes, box), self.longest)
        rows[:, :2] /= self.scale
        return rows.astype(np.float32)

    def strokes_of(self, rows: NDArray[np.floating[Any]]) -> Strokes:
        """The strokes of rows `(longest, 5)`, in units of the box, from the origin on."""
        drawn = from_stroke3(from_stroke5(rows))
        return [stroke * self.scale for stroke in drawn]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DrawingPreparation:
        return cls(**value)


def checked(strokes: Sequence[Points]) -> Strokes:
    """The strokes without repeated points and without empty strokes.

    Raises:
        DrawingError: there are none, or too many points, or a coordinate is not finite or beyond 1e9.
    """
    count = sum(len(stroke) for stroke in strokes)
    if count > MAX_POINTS:
        raise DrawingError(f"has {count:,} points; at most {MAX_POINTS:,} are read: simplify it")
    found = [np.asarray(stroke, dtype=np.float64).reshape(-1, 2) for stroke in strokes if len(stroke)]
    if not found:
        raise DrawingError("has no strokes: draw at least one line")
    for number, stroke in enumerate(found, start=1):
        if not bool((np.abs(stroke) <= 1e9).all()):
            raise DrawingError(f"stroke {number} has a coordinate that is not a number of at most 1e9")
    return [without_repeats(stroke) for stroke in found]


def deviation_of_offsets(drawings: Sequence[Points]) -> float:
    """Standard deviation of all offsets, dx and dy together, of stroke-3 rows; 1 if all are equal.

    As in the paper, offsets are scaled by it and not centred, since their means are about 0.
    """
    offsets = np.concatenate([rows[:, :2] for rows in drawings])
    deviation = float(np.std(offsets))
    return deviation if deviation > 0 else 1.0
