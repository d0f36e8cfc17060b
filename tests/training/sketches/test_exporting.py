"""Drawings written as SVG files are read again as the same drawings, and the manifest is one that is indexed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.commands import json_of
from tests.drawings import KINDS, draw_shape
from training.data.sources import read_images
from training.errors import OutputError
from training.sketches.exporting import write_drawings
from training.sketches.preparing import DrawingPreparation
from training.sketches.reading import SourceDrawing
from training.sketches.svg import read_svg


def test_the_files_hold_the_drawings_and_the_manifest_names_them(tmp_path: Path) -> None:
    drawings = [
        SourceDrawing(f"mine/{number}", draw_shape(number), {"category": KINDS[number % 3]}) for number in range(8)
    ]
    manifest = write_drawings(drawings, tmp_path / "out")
    images, problems = read_images(manifest)
    assert not problems
    assert [(image.item_id, image.category) for image in images] == [(each.item_id, each.category) for each in drawings]
    preparation = DrawingPreparation(longest=32, epsilon=0.0)
    for image, drawing in zip(images, drawings, strict=True):
        again = preparation.apply(read_svg(image.path.read_bytes()))
        np.testing.assert_allclose(again, preparation.apply(drawing.strokes), atol=0.2)  # of 255 units


def test_nothing_is_written_into_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(OutputError, match="not an empty folder"):
        write_drawings([SourceDrawing("a", draw_shape(0))], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_the_command_names_what_it_leaves_out(tmp_path: Path) -> None:
    source = tmp_path / "drawings.ndjson"
    good = '{"word": "cat", "key_id": "7", "drawing": [[[0, 10], [0, 10]]]}'
    source.write_text(f'{good}\n{{"drawing": 5}}\n')
    document = json_of("sketch", "export", source, "--out", tmp_path / "out")
    assert (document["drawings"], document["rejected"]) == (1, 1)
    [image] = read_images(Path(document["manifest"]))[0]
    assert (image.item_id, image.category) == ("7", "cat")
