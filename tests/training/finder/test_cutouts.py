"""Items cut out and scaled to one size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.dataset import Dataset
from training.errors import SourceError
from training.finder.cutouts import (
    MARGIN,
    SIDE,
    file_cutouts,
    gather,
    normalise,
    photo_cutouts,
    shape_cutouts,
    studio_cutouts,
)


def square_item(side: int, at: slice) -> np.ndarray:
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[..., :3] = 255  # what is transparent has a colour, too, which must not bleed in
    rgba[at, at] = (200, 40, 20, 255)
    return rgba


def test_an_item_fills_its_square_up_to_the_margin_and_keeps_its_colour():
    found = normalise(square_item(400, slice(100, 300)))
    assert found is not None and found.item.shape == (SIDE, SIDE, 4)
    covered = (found.item[..., 3] > 127).any(axis=0).sum() / SIDE
    assert abs(covered - 1.0 / (1.0 + 2.0 * MARGIN)) < 0.02
    inside = found.item[found.item[..., 3] > 40]
    assert np.abs(inside[:, :3].astype(int) - (200, 40, 20)).max() <= 2


@pytest.mark.parametrize("rgba", [np.zeros((50, 50, 4), np.uint8), square_item(60, slice(3, 5))])
def test_an_item_of_hardly_any_pixels_is_left_out(rgba):
    assert normalise(rgba) is None


def test_a_person_is_cut_by_the_frame_of_the_garment():
    person = np.zeros((200, 200, 4), np.uint8)
    person[:, 90:110] = (0, 0, 255, 255)
    found = normalise(square_item(200, slice(50, 150)), person)
    assert found is not None and found.under is not None
    column = found.under[:, SIDE // 2]
    assert (column[:, 3] > 250).all() and (found.under[:, 5, 3] == 0).all()


def test_the_studio_gives_items_of_both_stocks_some_on_a_person():
    found = list(studio_cutouts(8, seed=0))
    assert len(found) >= 7
    cutouts = gather([*found, *shape_cutouts(3, 0)])
    assert cutouts.items.shape[1:] == (4, SIDE, SIDE)
    assert len(cutouts.persons) == (cutouts.under >= 0).sum()


def test_files_without_transparency_or_content_are_passed_over(tmp_path: Path):
    Image.fromarray(square_item(100, slice(20, 80))).save(tmp_path / "item.png")
    Image.new("RGB", (50, 50)).save(tmp_path / "opaque.png")
    (tmp_path / "LICENSE").write_text("free")
    assert len(list(file_cutouts(tmp_path))) == 1
    assert not list(file_cutouts(tmp_path, keep=lambda name: name != "item.png"))
    with pytest.raises(SourceError, match="no such folder"):
        list(file_cutouts(tmp_path / "absent"))
    with pytest.raises(SourceError, match="nothing to cut out"):
        gather([])


def test_photos_are_cut_out_by_their_usable_masks_alone():
    mask = np.zeros((2, 64, 64), np.uint8)
    mask[:, 16:48, 16:48] = 255
    images = np.full((2, 3, 64, 64), 90, np.uint8)
    dataset = Dataset(images, ["a", "b"], ["", ""], [], [], mask, ["border", "failed"])
    assert len(list(photo_cutouts(dataset, [True, False]))) == 1
