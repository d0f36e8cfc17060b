"""Swap sets: backgrounds of each picture, absence of leaks, and the sources of a set's pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from indexer.errors import InvalidRequestError
from indexer.swaps.sources import FACTOR_SCENES, photo_set, studio_set
from indexer.swaps.swap_set import GIVEN, Bank, Shots, SwapSet, assemble, swap_background
from tests.conftest import draw_photo
from tests.indexer.swapped import KINDS, Write
from training.data.backgrounds import Folder
from training.data.sources import read_images
from training.data.studio import make_item
from training.data.studio.scenes import background_kind
from training.errors import SourceError

SIDE = 24


def shots(count: int = 12, categories: list[str | None] | None = None) -> Shots:
    """Squares of noise on noise; each item's background is one colour, which encodes its number."""
    rng = np.random.default_rng(0)
    gallery, query, clean = (rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8) for _ in range(3))
    masks = np.zeros((2, count, SIDE, SIDE), np.uint8)
    masks[0, :, 4:18, 4:18] = masks[1, :, 6:20, 6:20] = 255
    behind = [np.full((SIDE, SIDE, 3), 10 * n, np.uint8) for n in range(count)]
    kinds = categories or [KINDS[n % 2] for n in range(count)]
    return Shots([f"item {n:02d}" for n in range(count)], kinds, gallery, masks[0], query, masks[1], clean, behind)


def bank(count: int = 5) -> Bank:
    return Bank(np.stack([np.full((SIDE, SIDE, 3), 50 * n, np.uint8) for n in range(count)]), list("vwxyz")[:count])


def around(pictures: np.ndarray) -> np.ndarray:
    """The upper left corner, which no item covers."""
    return pictures[..., 0, 0, 0]


# --- putting items on backgrounds


def test_items_lose_a_pixel_all_around_and_the_rest_follows_the_formula() -> None:
    rng = np.random.default_rng(1)
    items, backgrounds = rng.integers(0, 256, (2, 3, 9, 9, 3), dtype=np.uint8)
    masks = rng.integers(0, 256, (3, 9, 9), dtype=np.uint8)
    masks[0] = 0
    masks[0, 2:7, 2:7] = 255
    found = swap_background(items, masks, backgrounds)
    for place in np.ndindex(3, 9, 9):
        number, y, x = place
        inner = masks[number, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].min() / 255
        exact = inner * items[place] + (1 - inner) * backgrounds[place].astype(float)
        assert np.abs(found[place] - exact).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(found[0, 3:6, 3:6], items[0, 3:6, 3:6])
    outside = np.ones((9, 9), bool)
    outside[3:6, 3:6] = False
    np.testing.assert_array_equal(found[0][outside], backgrounds[0][outside])


def test_every_item_is_on_every_background_of_the_bank_as_it_is() -> None:
    made = assemble("a set", "photos", shots(), bank(), 0)
    assert made.swapped.shape == (12, 5, SIDE, SIDE, 3) and made.backgrounds == list("vwxyz")
    assert (around(made.swapped) == [0, 50, 100, 150, 200]).all()
    core = np.s_[8:18, 8:18]
    for b in range(5):
        np.testing.assert_array_equal(made.swapped[:, b, *core], shots().query[:, *core])
    np.testing.assert_array_equal(made.clean, shots().clean)
    np.testing.assert_array_equal(made.gallery, shots().gallery)
    np.testing.assert_array_equal(made.masks, shots().query_masks)


@pytest.mark.parametrize("seed", range(3))
def test_lures_are_on_each_background_as_often_and_by_chance(seed: int) -> None:
    made = assemble("a set", "photos", shots(), bank(), seed)
    assert sorted(np.bincount(made.lure_backgrounds, minlength=5).tolist()) == [2, 2, 2, 3, 3]
    np.testing.assert_array_equal(around(made.lures), 50 * made.lure_backgrounds)
    np.testing.assert_array_equal(made.lures[:, 6:16, 6:16], shots().gallery[:, 6:16, 6:16])
    other = assemble("a set", "photos", shots(), bank(), seed + 1)
    assert made.lure_backgrounds.tolist() != other.lure_backgrounds.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_donors_are_other_items_of_the_own_category_or_of_any(seed: int) -> None:
    made = assemble("a set", "photos", shots(), bank(), seed)
    parts = made.by_category
    assert parts is not None and parts.rows.tolist() == list(range(12))
    labels = np.array([made.categories[row] for row in parts.rows])
    for donated in (parts.same, parts.random):
        assert (donated.donors != np.arange(12)).all()
        np.testing.assert_array_equal(around(donated.pictures), 10 * donated.donors)
        np.testing.assert_array_equal(donated.pictures[:, 8:18, 8:18], shots().query[:, 8:18, 8:18])
    assert (labels[parts.same.donors] == labels).all()
    assert (labels[parts.random.donors] != labels).any()


def test_items_without_background_or_of_small_categories_are_on_no_others() -> None:
    kinds: list[str | None] = [*["bag"] * 5, *["mug"] * 4, "hat", "hat", "hat", *[None] * 4]
    plain = shots(16, kinds)
    behind = [None, *plain.behind[1:]]
    parts = assemble("a set", "photos", replace(plain, behind=behind), bank(), 0).by_category
    assert parts is not None
    assert parts.rows.tolist() == [1, 2, 3, 4, 5, 6, 7, 8], "a hat without its own and two donors' photos finds no hat"
    np.testing.assert_array_equal(around(parts.same.pictures), 10 * parts.rows[parts.same.donors])
    assert assemble("a set", "photos", shots(12, ["bag"] * 12), bank(), 0).by_category is None
    assert assemble("a set", "photos", shots(12, [None] * 12), bank(), 0).by_category is None


def test_a_set_is_told_by_its_seed() -> None:
    one, again, other = (assemble("a set", "photos", shots(), bank(), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.lures, again.lures)
    assert one.by_category is not None and again.by_category is not None and other.by_category is not None
    np.testing.assert_array_equal(one.by_category.same.donors, again.by_category.same.donors)
    assert one.by_category.random.donors.tolist() != other.by_category.random.donors.tolist()
    np.testing.assert_array_equal(one.swapped, other.swapped)


def test_items_that_share_a_picture_are_one_product() -> None:
    plain = shots()
    gallery = np.stack([cv2.GaussianBlur(picture, (0, 0), 3) for picture in plain.gallery])
    gallery[7] = np.clip(gallery[2] + 1.0, 0, 255)
    made = assemble("a set", "photos", replace(plain, gallery=gallery), bank(), 0)
    tied = [name if name != "item 07" else "item 02" for name in plain.items]
    assert made.products == tied and made.items == plain.items


# --- leaks


def test_a_set_without_leaks_says_so_and_planted_queries_are_found() -> None:
    made = assemble("a set", "photos", shots(), bank(), 0)
    none = {"clean_queries_in_gallery": 0, "swapped_queries_in_gallery": 0, "swapped_queries_that_are_clean": 0}
    assert made.leaks() == none
    gallery = made.gallery.copy()
    gallery[3] = made.clean[5]
    assert replace(made, gallery=gallery).leaks() == {**none, "clean_queries_in_gallery": 1}
    gallery[4], gallery[6] = made.swapped[0, 1], made.swapped[9, 4]
    assert replace(made, gallery=gallery).leaks()["swapped_queries_in_gallery"] == 2
    swapped = made.swapped.copy()
    swapped[2, 0] = made.clean[2]
    assert replace(made, swapped=swapped).leaks() == {**none, "swapped_queries_that_are_clean": 1}
    swapped[2, 0, 5, 5, 0] ^= 1
    assert replace(made, swapped=swapped).leaks() == none, "a picture that differs is another"


# --- banks


def test_the_bank_has_textures_and_rooms_in_turn_each_once() -> None:
    drawn = Bank.drawn(6, 16)
    assert [name.split()[0] for name in drawn.names] == ["texture", "room"] * 3
    assert len(set(drawn.names)) == 6
    for name in drawn.names:
        kind, number = name.split()
        assert background_kind(9001, int(number)) == kind
    assert drawn.pictures.shape == (6, 16, 16, 3) and drawn.pictures.dtype == np.uint8
    assert len({picture.tobytes() for picture in drawn.pictures}) == 6
    np.testing.assert_array_equal(Bank.drawn(3, 16).pictures, drawn.pictures[:3])


def test_a_bank_of_a_folder_has_parts_of_its_photos(tmp_path: Path) -> None:
    Image.new("RGB", (60, 50), (200, 10, 10)).save(tmp_path / "red.png")
    Image.new("RGB", (60, 50), (10, 10, 200)).save(tmp_path / "blue.png")
    found = Bank.of_folder(Folder(tmp_path), 8, 16, 0)
    assert found.names[0] == "photo 1" and found.pictures.shape == (8, 16, 16, 3)
    assert {tuple(picture[0, 0]) for picture in found.pictures} == {(200, 10, 10), (10, 10, 200)}
    assert all((picture == picture[0, 0]).all() for picture in found.pictures)


# --- sets of a catalogue's photos


def made_of(manifest: Path, **options: object) -> SwapSet:
    images, problems = read_images(manifest)
    assert problems == []
    return photo_set("shop", images, side=32, per_item=2, processes=0, **options)  # type: ignore[arg-type]


def test_two_photos_of_twenty_items_are_gallery_and_query(write: Write) -> None:
    """Of 23 items one has a single photo, one a photo without a mask, one a photo that is none, and one three."""
    manifest = write([2] * 21 + [1, 3], bare=("03-1",), broken=("04-0",))
    made = made_of(manifest)
    assert made.truth == "photos" and len(made) == 20
    assert not {"item 03", "item 04", "item 21"} & set(made.items)
    assert made.left_out == {
        "photo cannot be read": 1, "photo without a usable mask": 1, "item with a single usable photo": 2,
    }  # fmt: skip
    assert made.mask_sources == {"column": 40} and made.mask_kind == "given"
    assert made.cut == (43, 44) and made.to_json()["share_left_out"] == pytest.approx(1 / 44)
    assert made.masks_in_words() == (
        "masks given (40 by column); 2% of the photos left out (1 of 44 could not be cut out)"
    )
    assert made.swapped.shape == (20, 2, 32, 32, 3)
    for number, item in enumerate(made.items):
        colour = np.random.default_rng(int(item.split()[1])).integers(0, 256, 3)
        inside = cv2.erode(made.masks[number], np.ones((3, 3), np.uint8)) == 255
        assert np.abs(made.clean[number][inside] - colour.astype(int)).max() <= 1
        assert np.abs(made.swapped[number, 1][inside] - colour.astype(int)).max() <= 1
    assert made.leaks() == dict.fromkeys(made.leaks(), 0)
    assert made.by_category is not None and [made.categories[0], made.categories[1]] == list(KINDS)
    assert (made.gallery != made.clean).any(axis=(1, 2, 3)).all()


def test_items_with_three_photos_need_two_with_masks(write: Write) -> None:
    made = made_of(write([3] * 20, bare=("00-0",)))
    assert len(made) == 20 and made.left_out == {"photo without a usable mask": 1}


def test_with_fewer_such_items_the_query_is_another_view_of_the_photo(write: Write) -> None:
    made = made_of(write([2] * 10 + [1] * 3, bare=("00-0", "12-0")))
    assert made.truth == "views"
    assert made.items == [f"item {n:02d}" for n in range(12)], "an item's second photo will do, none will not"
    assert made.left_out == {"photo without a usable mask": 2}
    assert made.mask_sources == {"column": 12}
    again, other = (made_of(write([2] * 10 + [1] * 3, bare=("00-0", "12-0")), seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(made.clean, again.clean)
    assert (made.clean != other.clean).any()
    np.testing.assert_array_equal(made.gallery, other.gallery)
    overlap = [((view > 127) & (made.masks[0] > 127)).sum() for view in made.masks]
    assert min(overlap) > 0


def test_fewer_than_eight_items_are_an_error_that_says_what_is_missing(write: Write) -> None:
    manifest = write([1] * 10, bare=("00-0", "01-0", "02-0"))
    with pytest.raises(InvalidRequestError) as error:
        made_of(manifest)
    message = str(error.value)
    assert "shop: 7 items can be cut out of their photos, 8 are needed" in message
    assert "3 times photo without a usable mask" in message and "\n" not in message
    assert len(made_of(write([1] * 8))) == 8


def test_no_more_items_are_taken_than_asked_for(write: Write) -> None:
    manifest = write([1] * 16)
    few, others = (made_of(manifest, limit=9, seed=seed).items for seed in (0, 1))
    assert len(few) == 9 and few == sorted(few) and few != others


def test_items_are_put_on_the_photos_of_a_folder(write: Write, tmp_path: Path) -> None:
    manifest = write([1] * 8)
    folder = tmp_path / "walls"
    folder.mkdir()
    Image.new("RGB", (64, 64), (7, 90, 201)).save(folder / "wall.png")
    made = made_of(manifest, backgrounds=folder)
    assert made.backgrounds == ["photo 1", "photo 2"]
    below = made.masks == 0
    assert all((made.swapped[n, b][below[n]] == (7, 90, 201)).all() for n in range(8) for b in range(2))
    (folder / "wall.png").write_bytes(b"no photo")
    with pytest.raises(SourceError, match="contains no readable image"):
        made_of(manifest, backgrounds=folder)
    with pytest.raises(SourceError, match="no such folder"):
        made_of(manifest, backgrounds=tmp_path / "absent")


def test_masks_may_be_told_from_plain_backgrounds(tmp_path: Path) -> None:
    for number in range(9):
        picture = Image.new("RGB", (64, 64), "white")
        picture.paste(draw_photo(number).resize((30, 30)), (12 + number, 16))
        picture.save(tmp_path / f"{number}.png")
    made = made_of(tmp_path)
    assert made.truth == "views" and len(made) == 9 and set(made.categories) == {None}
    assert set(made.mask_sources) <= {"border", "grabcut"} and sum(made.mask_sources.values()) == 9
    assert made.by_category is None
    assert made.mask_kind == "found" and made.cut == (9, 9)
    with pytest.raises(InvalidRequestError, match="0 items can be cut out"):
        made_of(tmp_path, masks=GIVEN)


def test_photos_with_an_alpha_channel_are_a_set_with_exact_masks(tmp_path: Path) -> None:
    for number in range(10):
        picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
        picture.paste(draw_photo(number).resize((30, 30)), (10 + number, 16))
        picture.save(tmp_path / f"{number}.png")
    draw_photo(10).save(tmp_path / "10.png")
    made = made_of(tmp_path, masks=GIVEN)
    assert made.mask_sources == {"alpha": 10} and made.mask_kind == "given" and made.cut == (10, 11)


# --- sets of drawn items


def test_drawn_items_are_in_another_pose_on_one_background(drawn: SwapSet) -> None:
    made = drawn
    assert made.truth == "photos" and made.name == "studio shop, 8 items, seed 9001"
    assert made.items == [make_item(9001, number).item_id for number in range(8)]
    assert made.categories == [item.rsplit("-", 1)[0] for item in made.items]
    bare = made.masks == 0
    for n in range(8):
        alike = [(made.gallery[other] == made.clean[n]).all(axis=-1)[bare[n]].mean() for other in range(8)]
        assert alike[n] > 0.5 and max(np.delete(alike, n)) < 0.4, "the background is its own"
        assert (made.gallery[n] != made.clean[n]).any(axis=-1).mean() > 0.05, "the pose is another"
    assert made.leaks() == dict.fromkeys(made.leaks(), 0)
    assert made.mask_sources == {"column": 16} and made.cut == (16, 16) and made.cut.left_out == 0


def test_drawn_items_are_swapped_by_themselves_onto_the_bank(drawn: SwapSet) -> None:
    made = drawn
    pictures = Bank.drawn(4, 48, 9001).pictures
    kernel = np.ones((3, 3), np.uint8)
    for n in range(8):
        inner = cv2.erode(made.masks[n], kernel)
        assert 0 < inner.mean() / 255 < 0.9
        for b in range(4):
            np.testing.assert_array_equal(made.swapped[n, b][inner == 0], pictures[b][inner == 0])
            np.testing.assert_array_equal(made.swapped[n, b][inner == 255], made.clean[n][inner == 255])
            own = (made.clean[n] == made.swapped[n, b]).all(axis=-1)[inner == 0].mean()
            assert own < 0.1, "no item's own background is in the bank"


def test_the_factorial_is_balanced(drawn: SwapSet) -> None:
    """All items in the same poses and lights on the same backgrounds; each factor changes the picture."""
    assert drawn.factorial is not None
    names, z = drawn.factorial.names, drawn.factorial.pictures
    assert names == ("item", "background", "pose", "light") and z.shape == (8, 4, 3, 3, 48, 48, 3)
    corner = z[..., 0, 0, :]
    for b, picture in enumerate(Bank.drawn(4, 48, 9001).pictures):
        assert (corner[:, b] == picture[0, 0]).all()
    for axis in range(4):
        first, second = np.take(z, 0, axis=axis), np.take(z, 1, axis=axis)
        changed = (first != second).reshape(-1, 48 * 48 * 3).any(axis=1)
        assert changed.all(), names[axis]
    # What an item covers does not depend on the background or the light: there the background shows through alike.
    shown = (z == Bank.drawn(4, 48, 9001).pictures[None, :, None, None]).all(axis=-1)
    covers = (~shown).all(axis=(1, 3))  # (item, pose, S, S)
    for light in range(3):
        assert ((~shown[:, 0, :, light]) & ~covers).mean() < 0.02
    assert (covers[:, 0] != covers[:, 1]).any(axis=(1, 2)).all()


def test_every_factor_of_the_factor_photos_is_known(drawn_with_counts: tuple[SwapSet, list[int]]) -> None:
    made, counts = drawn_with_counts
    photos = made.factor_photos
    assert photos is not None
    assert Counter(photos.items) == dict.fromkeys(made.items, FACTOR_SCENES)
    assert photos.pictures.shape == (8 * FACTOR_SCENES, 48, 48, 3)
    assert {"category", "colour", "background", "rotation", "scale", "exposure", "warmth"} <= set(photos.factors)
    assert not {"yaw", "pitch"} & set(photos.factors), "what never varies is no factor"
    assert set(photos.factors["background"]) <= set(made.backgrounds)
    place = dict(zip(made.backgrounds, Bank.drawn(4, 48, 9001).pictures, strict=True))
    for picture, background in zip(photos.pictures, photos.factors["background"], strict=True):
        assert (picture == place[background]).all(axis=-1).mean() > 0.15
    assert sum(counts) == 8 * (2 + 3 * 3 + FACTOR_SCENES)


def test_solids_are_drawn_without_factors_where_none_are_asked_for() -> None:
    made = studio_set("solids", 8, per_item=2, side=32, factors=False)
    assert made.factorial is None and made.factor_photos is None
    assert all(item.startswith("solid-") for item in made.items) and made.swapped.shape == (8, 2, 32, 32, 3)
    with pytest.raises(InvalidRequestError, match="items must be at least 8, not 7"):
        studio_set("solids", 7)
