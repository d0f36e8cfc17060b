"""Foreground masks compared with the studio's exact masks, and the detection of failed masks."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from training.data.dataset import load_dataset
from training.data.decode import ImageLimits, decode_alpha, decode_image
from training.data.item_finder import find_item
from training.data.masks import Mask, MaskRequest, border_mask, find_mask, finder_mask, grabcut_mask
from training.data.reader import Loaded, Request, read_file
from training.data.sources import SourceImage
from training.data.studio import Photo, make_item, random_scene, render
from training.data.studio.scenes import background_kind
from training.errors import EncoderError
from training.preprocessing import Preprocessing

SMALL = Preprocessing(32)


def overlap(mask: Mask, exact: NDArray[np.uint8]) -> float:
    found, wanted = mask.pixels > 127, exact > 127
    return float((found & wanted).sum() / (found | wanted).sum())


@pytest.fixture(scope="module")
def photos() -> dict[str, list[Photo]]:
    """Unworn products of the studio by the kind of their background."""
    found: dict[str, list[Photo]] = {"plain": [], "gradient": [], "texture": [], "room": []}
    for number in range(44):
        item = make_item(5, number)
        scene = random_scene(item, 0)
        if scene.figure is None:
            found[background_kind(5, scene.background_id)].append(render(item, scene, 128))
    return found


@pytest.mark.slow
def test_the_border_tells_items_on_plain_backgrounds(photos: dict[str, list[Photo]]) -> None:
    masks = [(border_mask(photo.image), photo.mask) for photo in photos["plain"]]
    usable = [overlap(mask, exact) for mask, exact in masks if mask.is_usable]
    assert len(usable) >= 0.7 * len(masks)
    assert np.median(usable) >= 0.9


def test_grabcut_finds_items_before_clutter(photos: dict[str, list[Photo]]) -> None:
    clutter = photos["texture"] + photos["room"]
    masks = [(grabcut_mask(photo.image), photo.mask) for photo in clutter]
    usable = [overlap(mask, exact) for mask, exact in masks if mask.is_usable]
    assert len(usable) >= 0.4 * len(masks)
    assert np.median(usable) >= 0.6


def test_usable_masks_are_better_than_those_that_are_not(photos: dict[str, list[Photo]]) -> None:
    everything = [photo for several in photos.values() for photo in several]
    masks = [(find_mask(photo.image), photo.mask) for photo in everything]
    usable = [overlap(mask, exact) for mask, exact in masks if mask is not None and mask.is_usable]
    failed = [overlap(mask, exact) for mask, exact in masks if mask is not None and not mask.is_usable]
    assert len(usable) >= 0.7 * len(everything) and np.median(usable) >= 0.85
    assert np.mean(usable) > np.mean(failed or [0.0])


def scene(colour: tuple[int, int, int] = (180, 40, 40), behind: int = 235) -> NDArray[np.uint8]:
    pixels = np.full((60, 80, 3), behind, np.uint8)
    pixels[15:45, 20:60] = colour
    return pixels


def test_an_item_on_one_colour_is_found_to_the_pixel() -> None:
    mask = border_mask(scene())
    assert (mask.source, mask.is_usable, mask.pixels.shape) == ("border", True, (60, 80))
    assert overlap(mask, (scene()[..., 0] < 200).astype(np.uint8) * 255) > 0.95


def test_a_slow_change_of_the_background_is_none_of_the_item() -> None:
    pixels = scene().astype(int)
    pixels[:, :, :] -= np.linspace(0, 50, 80).astype(int)[None, :, None] * (pixels[:, :, 1:2] > 200)
    assert overlap(border_mask(pixels.astype(np.uint8)), (scene()[..., 0] < 200).astype(np.uint8) * 255) > 0.9


@pytest.mark.parametrize(
    ("pixels", "fault"),
    [
        (np.full((40, 40, 3), 200, np.uint8), "covers 0.0%"),
        (np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8), "border does not have one colour"),
        (np.pad(np.full((2, 2, 3), 20, np.uint8), ((20, 20), (20, 20), (0, 0)), constant_values=240), "covers 0"),
    ],
)  # fmt: skip
def test_a_border_mask_that_cannot_be_right_says_why(pixels: NDArray[np.uint8], fault: str) -> None:
    mask = border_mask(pixels)
    assert not mask.is_usable and mask.fault is not None
    assert re.search(fault, mask.fault)


def test_two_separate_halves_are_no_item_and_noise_is_none() -> None:
    many = np.full((64, 64, 3), 240, np.uint8)
    for place in range(8, 56, 16):
        many[place : place + 8, 8:56:1] = 30
    assert border_mask(many).fault == "it is in many pieces"
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert not grabcut_mask(noise).is_usable
    assert not grabcut_mask(np.full((64, 64, 3), 128, np.uint8)).is_usable


def test_the_first_usable_source_is_taken() -> None:
    column, alpha = np.zeros((30, 40), np.uint8), np.zeros((60, 80), np.uint8)
    column[5:25, 5:35] = 255
    alpha[10:50, 10:70] = 255
    pixels = scene()
    for given, source in (({"column": column, "alpha": alpha}, "column"), ({"alpha": alpha}, "alpha"), ({}, "border")):
        found = find_mask(pixels, **given)  # type: ignore[arg-type]
        assert found is not None and (found.source, found.is_usable) == (source, True)
        assert found.pixels.shape == (60, 80)
    blank = find_mask(pixels, column=np.zeros((60, 80), np.uint8), alpha=np.full((60, 80), 255, np.uint8))
    assert blank is not None and blank.source == "border"
    only = find_mask(pixels, sources=("grabcut",))
    assert only is not None and only.source == "grabcut"
    assert find_mask(pixels, sources=("column",)) is None
    assert find_mask(pixels[:4, :4]) is None


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_alpha_is_read_and_pixels_stay_on_white() -> None:
    rgba = np.dstack([scene(), np.zeros((60, 80), np.uint8)])
    rgba[10:50, 10:70, 3] = 255
    data = png(rgba)
    alpha = decode_alpha(data)
    assert alpha is not None and np.array_equal(alpha, rgba[..., 3])
    assert (decode_image(data).pixels[0, 0] == 255).all()
    assert decode_alpha(png(scene())) is None
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, "JPEG")
    assert decode_alpha(buffer.getvalue()) is None


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_a_mask_is_fitted_as_its_photo_is(fit: str, tmp_path: Path) -> None:
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[20:40, 20:70] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    Image.fromarray(pixels[::2, ::2, 0]).save(tmp_path / "mask.png")
    preprocessing = Preprocessing(32, 3, fit)  # type: ignore[arg-type]
    request = Request(tmp_path / "photo.png", mask=MaskRequest(column=tmp_path / "mask.png"))
    outcome = read_file(request, preprocessing, ImageLimits())
    assert isinstance(outcome, Loaded) and outcome.mask is not None and outcome.pixels is not None
    assert outcome.mask.source == "column" and outcome.mask.pixels.shape == (32, 32)
    photo = outcome.pixels[0].astype(int)
    if fit == "pad":
        assert (photo[:6] == 255).all() and (outcome.mask.pixels[:6] == 0).all()
        photo[:7] = photo[25:] = 0
    assert np.abs(photo - outcome.mask.pixels)[8:24].mean() < 12


def test_without_being_asked_for_no_mask_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png(scene()))
    outcome = read_file(Request(tmp_path / "photo.png"), SMALL, ImageLimits())
    assert isinstance(outcome, Loaded) and outcome.mask is None


def test_a_data_set_counts_where_its_masks_are_from(tmp_path: Path) -> None:
    alpha = np.dstack([scene(), (scene()[..., 0] < 200).astype(np.uint8) * 255])
    noise = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for name, pixels in (("alpha", alpha), ("border", scene()), ("noise", noise), ("column", noise)):
        (tmp_path / f"{name}.png").write_bytes(png(pixels))
    (tmp_path / "mask.png").write_bytes(png((scene()[..., 0] < 200).astype(np.uint8) * 255))
    (tmp_path / "broken.png").write_bytes(b"no image")
    rows = [SourceImage(name, str(tmp_path / f"{name}.png")) for name in ("alpha", "border", "noise")]
    rows.append(SourceImage("column", str(tmp_path / "column.png"), mask=tmp_path / "mask.png"))
    rows.append(SourceImage("broken mask", str(tmp_path / "border.png"), mask=tmp_path / "broken.png"))
    dataset = load_dataset(rows, SMALL, masks=("column", "alpha", "border", "grabcut"))
    assert dataset.mask_sources == ["alpha", "border", "failed", "column", "border"]
    assert dataset.mask_counts == {"column": 1, "alpha": 1, "border": 2, "finder": 0, "grabcut": 0, "failed": 1}
    assert dataset.masks is not None and dataset.masks.shape == (5, 32, 32)
    assert (dataset.masks[2] == 255).all()
    assert 0.15 < (dataset.masks[3] > 127).mean() < 0.35
    without = load_dataset(rows, SMALL)
    assert without.masks is None and without.mask_counts == {}
    assert without.fingerprint == dataset.fingerprint


@pytest.mark.slow
def test_several_processes_find_the_masks_that_one_finds(tmp_path: Path) -> None:
    rows = []
    for number in range(60):
        path = tmp_path / f"{number}.png"
        path.write_bytes(png(scene((number * 4, 40, 200 - number))))
        rows.append(SourceImage(str(number), str(path)))
    alone, pooled = (load_dataset(rows, SMALL, processes=n, masks=("border", "grabcut")) for n in (0, 2))
    assert alone.masks is not None and pooled.masks is not None
    assert np.array_equal(alone.masks, pooled.masks) and alone.mask_sources == pooled.mask_sources


def test_the_finder_takes_drawn_items_anywhere_and_finds_nothing_in_noise_and_on_bare_ground(
    photos: dict[str, list[Photo]],
) -> None:
    found = [(finder_mask(photo.image), photo.mask > 127) for of_kind in photos.values() for photo in of_kind]
    usable = [(mask.pixels > 127, true) for mask, true in found if mask.is_usable]
    assert len(usable) >= 0.8 * len(found)
    overlaps = [(mask & true).sum() / (mask | true).sum() for mask, true in usable]
    assert np.median(overlaps) > 0.85
    rng = np.random.default_rng(0)
    for side in (24, 200):
        noise = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(6)]
        assert not any(finder_mask(pixels).is_usable for pixels in noise)
    assert not finder_mask(np.full((64, 64, 3), 128, np.uint8)).is_usable


def test_a_finder_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="finder.onnx: the item finder cannot be read"):
        find_item(np.zeros((32, 32, 3), np.uint8), tmp_path / "finder.onnx")
    (tmp_path / "finder.onnx").write_bytes(b"broken")
    with pytest.raises(EncoderError, match="finder.onnx: ONNX Runtime cannot load it"):
        find_item(np.zeros((32, 32, 3), np.uint8), tmp_path / "finder.onnx")
