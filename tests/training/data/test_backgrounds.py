"""The bank of backgrounds: every kind, reproducible by seed, from photos and folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.backgrounds import PhotoBackgrounds, build_backgrounds, flat, gradient, room, texture
from training.errors import SourceError
from training.recipes.schema import BackgroundKinds, Backgrounds

NONE = {"flat": 0, "gradient": 0, "texture": 0, "photos": 0, "studio": 0, "folder": 0}


def photos(masked: bool = True) -> PhotoBackgrounds:
    images = np.full((4, 3, 32, 32), 200, np.uint8)
    images[:, :, 8:24, 8:24] = 10
    masks = np.zeros((4, 32, 32), np.uint8)
    masks[:, 8:24, 8:24] = 255
    return PhotoBackgrounds(images, masks if masked else np.full_like(masks, 255))


def only(kind: str, **settings: object) -> Backgrounds:
    return Backgrounds(count=12, kinds=BackgroundKinds(**{**NONE, kind: 1}), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["flat", "gradient", "texture", "photos", "studio"])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_kind_fills_a_bank_that_its_seed_decides(kind: str, channels: int) -> None:
    settings = only(kind)
    grey_or_colour = PhotoBackgrounds(photos().images[:, :channels], photos().masks)
    bank, again, other = (build_backgrounds(settings, seed, 32, channels, grey_or_colour) for seed in (1, 1, 2))
    assert bank.shape == (12, channels, 32, 32) and bank.dtype == np.uint8
    assert np.array_equal(bank, again)
    if kind != "photos":
        assert not np.array_equal(bank, other)
        assert len(np.unique(bank.reshape(12, -1), axis=0)) == 12


def test_kinds_look_like_what_they_are_called() -> None:
    rng = np.random.default_rng(0)
    assert max(float(flat(rng, 32).std(axis=(0, 1)).max()) for _ in range(5)) < 0.01
    assert min(float(texture(rng, 32).std(axis=(0, 1)).max()) for _ in range(10)) > 1.0
    smooth = gradient(rng, 64)
    assert float(np.abs(np.diff(smooth, axis=1)).max()) < 60.0
    assert room(rng, 48).shape == (48, 48, 3)


def test_items_are_painted_out_of_photos() -> None:
    rng = np.random.default_rng(0)
    scene = photos().draw(rng, 32)
    assert float(scene.min()) > 180.0
    part = photos(masked=False).draw(rng, 32)  # nobody knows where the item is: a part of the photo has to do
    assert part.shape == (32, 32, 3)


def test_a_folder_gives_parts_of_its_images_and_forgives_other_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (90, 50), (255, 0, 0)).save(tmp_path / "red.jpg", quality=95)
    Image.new("RGB", (50, 90), (0, 0, 255)).save(tmp_path / "sub" / "blue.png")
    (tmp_path / "notes.txt").write_text("not an image")
    bank = build_backgrounds(only("folder", folder=str(tmp_path)), 0, 32, 3, photos())
    tops = {tuple(int(v) // 128 for v in colour) for colour in bank[:, :, 0, 0]}
    assert tops == {(1, 0, 0), (0, 0, 1)}


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        build_backgrounds(only("folder", folder=str(tmp_path / "none")), 0, 32, 3, photos())
    with pytest.raises(SourceError, match="contains no readable image"):
        build_backgrounds(only("folder", folder=str(tmp_path)), 0, 32, 3, photos())
