"""The drawings of a source, prepared for a model and held in memory."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Skipped
from training.data.entries import SourceProblem
from training.errors import DrawingError, SourceError
from training.sketches.preparing import DrawingPreparation, deviation_of_offsets
from training.sketches.reading import SourceDrawing
from training.sketches.strokes import Points, to_stroke5


@dataclass(frozen=True)
class DrawingSet:
    """Rows `(N, longest, 5)` float32 of drawings in the order of the source, and the drawings that were skipped."""

    rows: NDArray[np.float32]
    item_ids: list[str]
    attributes: list[dict[str, str]]
    skipped: list[Skipped]
    preparation: DrawingPreparation

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the sorted (item_id, SHA-256 of the rows in units of the box) pairs."""
        units = np.round(self.rows * np.array([self.preparation.scale] * 2 + [1.0] * 3), 3).astype(np.float32)
        contents = [hashlib.sha256(rows.tobytes()).hexdigest() for rows in units]
        digest = hashlib.sha256()
        for item_id, content in sorted(zip(self.item_ids, contents, strict=True)):
            digest.update(f"{item_id}\0{content}\n".encode())
        return digest.hexdigest()


def prepare_drawings(
    drawings: Sequence[SourceDrawing],
    preparation: DrawingPreparation,
    *,
    problems: Sequence[SourceProblem] = (),
    progress: bool = False,
) -> DrawingSet:
    """Prepare drawings for an encoder; those that cannot be used are listed in `skipped`.

    Args:
        problems: of the source, listed there too.
        progress: show a progress bar on stderr, if that is a terminal.

    Raises:
        SourceError: none of the drawings can be used.
    """
    from tqdm import tqdm

    skipped = [Skipped(problem.where, problem.reason) for problem in problems]
    found: list[tuple[SourceDrawing, Points]] = []
    for each in tqdm(drawings, "simplifying", disable=not progress or None, file=sys.stderr, unit="drawing"):
        try:
            found.append((each, preparation.simplified(each.strokes)))
        except DrawingError as exc:
            skipped.append(Skipped(each.where or each.item_id, str(exc)))
    if not found:
        first = f"; the first, {skipped[0].where}: {skipped[0].reason}" if skipped else ""
        raise SourceError(f"none of {len(drawings) + len(problems)} drawings can be used{first}")
    rows = np.stack([to_stroke5(stroke3, preparation.longest) for _, stroke3 in found]).astype(np.float32)
    rows[..., :2] /= preparation.scale
    return DrawingSet(
        rows,
        [each.item_id for each, _ in found],
        [each.attributes for each, _ in found],
        skipped,
        preparation,
    )


def scaled_to(drawings: DrawingSet, positions: NDArray[np.intp]) -> DrawingSet:
    """The drawings with offsets divided by their standard deviation among the drawings at some positions."""
    chosen = drawings.rows[positions]
    points = chosen[chosen[..., 4] < 0.5].astype(np.float64)
    deviation = deviation_of_offsets([points])
    rows = drawings.rows.copy()
    rows[..., :2] /= deviation
    scale = drawings.preparation.scale * deviation
    return replace(drawings, rows=rows, preparation=replace(drawings.preparation, scale=scale))
