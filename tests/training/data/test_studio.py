"""The synthetic shop: deterministic drawings, exact masks, every kind, and backgrounds independent of the item."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from training.data.decode import decode_image
from training.data.sources import read_images
from training.data.studio import Item, Photo, category_of, make_item, random_scene, render
from training.data.studio.canvas import Board
from training.data.studio.catalogue import write_catalogue
from training.data.studio.products import KINDS, WEARABLE
from training.data.studio.scenes import BACKGROUNDS, background_kind, draw_background
from training.data.studio.solids import SOLIDS, Solid, rotation
from training.data.studio.solids import photograph as photograph_solid
from training.errors import NitamonoError


def photograph(number: int, photo: int = 0, *, seed: int = 0, size: int = 128) -> Photo:
    item = make_item(seed, number)
    return render(item, random_scene(item, photo), size)


def blank(number: int) -> Item:
    """An unpainted item with only a number and a category, on which its scenes depend."""
    return Item(0, number, "", category_of(0, number), "", "", "", "")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("studio") / "shop"
    write_catalogue(out, items=16, photos_per_item=2, size=96, processes=2)
    return out


def test_the_same_seed_draws_the_same_photo_and_another_seed_another() -> None:
    first, again, other = photograph(7), photograph(7), photograph(7, seed=1)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first.image != other.image).any()


@pytest.mark.slow
def test_an_item_does_not_depend_on_how_many_there_are(shop: Path, tmp_path: Path) -> None:
    few = write_catalogue(tmp_path / "few", items=8, photos_per_item=1, size=96, processes=0).parent
    same = [path.name for path in sorted((few / "images").iterdir())]
    assert len(same) == 8
    for name in same:
        assert (few / "images" / name).read_bytes() == (shop / "images" / name).read_bytes()


def test_the_image_is_product_over_background_by_the_mask_exactly() -> None:
    for number in range(20):
        photo = photograph(number)
        weight = photo.mask[..., None] / 255.0
        expected = np.round(weight * photo.product + (1 - weight) * photo.background).astype(np.uint8)
        np.testing.assert_array_equal(photo.image, expected)


def test_one_item_pose_and_light_on_two_backgrounds_differ_behind_it_alone() -> None:
    for number in (0, 3, 8, 12):
        item = make_item(0, number)
        scene = random_scene(item, 0)
        one, two = (render(item, replace(scene, background_id=b), 128) for b in (3, 4))
        np.testing.assert_array_equal(one.mask, two.mask)
        np.testing.assert_array_equal(one.product, two.product)
        inside = one.mask == 255
        assert inside.any()
        np.testing.assert_array_equal(one.image[inside], two.image[inside])
        assert (one.image[one.mask == 0] != two.image[one.mask == 0]).any()


def test_every_kind_appears_equally_often() -> None:
    categories = [category_of(0, number) for number in range(2 * len(KINDS))]
    assert make_item(0, 4).category == categories[4]
    assert {kind: categories.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 2)
    assert len(KINDS) >= 12


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_products_of_every_kind_fill_a_fair_part_of_the_frame_and_stay_inside(kind: str) -> None:
    numbers = [number for number in range(60) if category_of(2, number) == kind]
    for number in numbers:
        for photo in range(2):
            mask = photograph(number, photo, seed=2, size=64).mask / 255.0
            assert 0.015 <= mask.mean() <= 0.75
            frame = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
            assert (frame > 0.5).mean() < 0.2


def test_photos_of_one_item_differ_in_pose_but_not_in_what_they_show() -> None:
    item = make_item(0, 5)
    one, two = (random_scene(item, photo) for photo in (0, 1))
    assert one.pose != two.pose and one.light != two.light
    colours = [photograph(5, photo).product[photograph(5, photo).mask == 255].mean(axis=0) for photo in (0, 1)]
    assert np.abs(colours[0] / colours[0].sum() - colours[1] / colours[1].sum()).max() < 0.08


def test_only_garments_are_worn() -> None:
    worn = {item.category for number in range(120) if random_scene(item := blank(number), 0).figure is not None}
    assert worn and worn <= WEARABLE


def test_backgrounds_tell_nothing_of_the_category() -> None:
    """The kinds of background and the categories of 1,500 photos are independent by a chi-squared test."""
    kinds = sorted({background_kind(0, number) for number in range(BACKGROUNDS)})
    assert kinds == ["gradient", "plain", "room", "texture"]
    categories = sorted(KINDS)
    table = np.zeros((len(kinds), len(categories)))
    ids = []
    for number in range(150):
        item = blank(number)
        for photo in range(10):
            background = random_scene(item, photo).background_id
            ids.append(background)
            table[kinds.index(background_kind(0, background)), categories.index(item.category)] += 1
    assert chi2_contingency(table).pvalue > 0.01
    assert len(set(ids)) > 0.95 * BACKGROUNDS


def test_a_background_is_the_same_in_every_photo_and_cannot_be_written_to() -> None:
    np.testing.assert_array_equal(draw_background(0, 9, 64), draw_background(0, 9, 64))
    assert (draw_background(0, 9, 64) != draw_background(0, 10, 64)).any()
    with pytest.raises(ValueError, match="read-only"):
        draw_background(0, 9, 64)[0, 0, 0] = 1


def test_a_hole_shows_what_is_behind() -> None:
    board = Board(np.random.default_rng(0))
    whole = np.ones_like(board.alpha)
    board.add(whole, (200, 0, 0))
    board.hole(whole)
    assert not board.alpha.any()


def test_the_manifests_read_back_without_a_problem(shop: Path) -> None:
    assert len(read_images(shop / "scenes.csv")[0]) == 32
    images, problems = read_images(shop / "catalogue.csv")
    assert set(images[0].attributes) == {"category", "colour", "second_colour", "print"}
    assert problems == [] and len(images) == 32
    gallery, queries = (read_images(shop / f"{name}.csv")[0] for name in ("gallery", "queries"))
    assert {image.item_id for image in gallery} == {image.item_id for image in queries}
    assert {image.path for image in gallery}.isdisjoint({image.path for image in queries})
    assert len({image.item_id for image in images}) == 16
    for image in images:
        assert image.title and image.category in KINDS
        assert image.mask is not None
        photo, mask = decode_image(image.path.read_bytes()), decode_image(image.mask.read_bytes())
        assert photo.pixels.shape == mask.pixels.shape == (96, 96, 3)
        assert mask.pixels.max() == 255 and mask.pixels.min() == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(SOLIDS))
def test_solids_of_every_kind_are_whole_and_stay_inside(kind: str) -> None:
    for number in [number for number in range(44) if category_of(3, number, "solids") == kind]:
        item = make_item(3, number, "solids")
        for shot in range(2):
            photo = render(item, random_scene(item, shot), 96)
            mask = photo.mask / 255.0
            assert 0.02 <= mask.mean() <= 0.75
            frame = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
            assert (frame > 0.5).mean() < 0.1
            weight = photo.mask[..., None] / 255.0
            expected = np.round(weight * photo.product + (1 - weight) * photo.background).astype(np.uint8)
            np.testing.assert_array_equal(photo.image, expected)
            if kind in ("ball", "box", "can"):  # no holes: every row of a convex thing is covered from end to end
                for row in mask[mask.max(axis=1) > 0.99]:
                    covered = np.flatnonzero(row > 0.99)
                    assert (row[covered[0] : covered[-1] + 1] > 0.7).all()


def test_a_cube_shows_the_side_that_is_turned_to_the_camera_and_the_lamp_lights_it() -> None:
    colours = iter([(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200), (200, 0, 200)])
    cube = Solid()
    cube.box(np.ones(3), np.zeros(3), lambda: np.full((320, 320, 3), next(colours), np.float32))
    front = np.array([0.0, -1.0, 0.0])
    shown = []
    for yaw in (0, 90, 180, 270):  # -y, then what stood at -x, +y, +x turns to the camera
        taken = photograph_solid(cube, rotation(yaw), front, 0.5, (0.5, 0.5), 64)
        assert taken[32, 32, 3] == 1
        shown.append(taken[32, 32, :3])
        assert abs(taken[..., 3].mean() - 0.25) < 0.02  # half of the photo's side, both ways
    sides = [(0, 0, 200), (200, 0, 0), (200, 200, 0), (0, 200, 0)]
    np.testing.assert_allclose(shown, np.multiply(sides, 1.05), atol=0.5)
    unlit = photograph_solid(cube, rotation(0), -front, 0.5, (0.5, 0.5), 64)
    np.testing.assert_allclose(unlit[32, 32, :3], np.multiply(sides[0], 0.55), atol=0.5)


def test_solids_are_seen_from_several_sides_and_the_shop_from_one() -> None:
    solid, flat = make_item(0, 0, "solids"), make_item(0, 0)
    assert len({random_scene(solid, shot).pose.yaw for shot in range(5)}) == 5
    assert {random_scene(flat, shot).pose.yaw for shot in range(5)} == {0.0}
    front = random_scene(solid, 0).pose.yaw
    assert all(abs(random_scene(solid, shot).pose.yaw - front) <= 120 for shot in range(30))


def test_a_stock_of_solids_is_written_as_the_shop_is(tmp_path: Path) -> None:
    out = write_catalogue(tmp_path / "solids", items=11, photos_per_item=2, size=64, stock="solids").parent
    images, problems = read_images(out / "catalogue.csv")
    assert problems == [] and len(images) == 22
    assert {image.category for image in images} == set(SOLIDS)
    assert all(image.title and image.mask is not None for image in images)


def test_the_files_do_not_depend_on_the_number_of_processes(shop: Path, tmp_path: Path) -> None:
    done: list[int] = []
    alone = write_catalogue(
        tmp_path / "alone", items=16, photos_per_item=2, size=96, processes=0, progress=done.append
    ).parent
    files = [path.relative_to(shop) for path in sorted(shop.rglob("*.*"))]
    assert len(files) == 2 * 32 + 4 and sum(done) == 32
    for name in files:
        assert (alone / name).read_bytes() == (shop / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stock": "cars"}, "stock must be one of shop, solids, not 'cars'"),
        ({"items": 0}, "items must be at least 1"),
        ({"photos_per_item": 0}, "photos-per-item must be at least 1"),
        ({"size": 16}, "size must be between 32 and 1024"),
        ({"size": 2000}, "size must be between 32 and 1024"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(NitamonoError, match=message):
        write_catalogue(tmp_path / "new", **{"items": 1, "photos_per_item": 1, **options})
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    with pytest.raises(NitamonoError, match="is not empty; choose a new folder"):
        write_catalogue(tmp_path, items=1, photos_per_item=1)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
