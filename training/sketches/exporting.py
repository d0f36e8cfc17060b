"""Drawings as SVG files, one for each, with a manifest that `nitamono index` reads. Imports no torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from training.errors import OutputError
from training.files import publish_file
from training.sketches.reading import SourceDrawing
from training.sketches.sheets import drawing_svg

MANIFEST = "drawings.csv"
SIDE = 256.0  # of the square that a drawing is centred in


def write_drawings(
    drawings: Sequence[SourceDrawing], out: Path, *, advance: Callable[[int], None] = lambda count: None
) -> Path:
    """Write drawings to `out/svg/NNNNNN.svg`, and the manifest with their item_ids and attributes, which is returned.

    Raises:
        OutputError: the folder is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: is not an empty folder; choose a new one")
    folder = out / "svg"
    folder.mkdir(parents=True)
    names = sorted({name for drawing in drawings for name in drawing.attributes})
    text = io.StringIO()
    rows = csv.DictWriter(text, ("item_id", "image", *names), lineterminator="\n")
    rows.writeheader()
    for number, drawing in enumerate(drawings):
        path = folder / f"{number:06d}.svg"
        path.write_text(drawing_svg(drawing.strokes, side=SIDE), encoding="utf-8")
        rows.writerow({"item_id": drawing.item_id, "image": f"svg/{path.name}", **drawing.attributes})
        advance(1)
    return publish_file(out / MANIFEST, text.getvalue().encode())
