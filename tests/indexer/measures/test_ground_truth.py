"""Other views keep the item; near-duplicates are found and other products are not; both tie products together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from indexer.measures.ground_truth import near_duplicates, other_view, products
from tests.conftest import draw_photo
from training.data.studio import make_item, random_scene, render

SIDE = 96


def shape_photo(colour: tuple[int, int, int], background: int = 240, place: int = 0) -> np.ndarray:
    """A plain mug-like shape on a plain background."""
    picture = np.full((SIDE, SIDE, 3), background, np.uint8)
    cv2.rectangle(picture, (25 + place, 20), (65 + place, 80), colour, -1)
    cv2.ellipse(picture, (67 + place, 50), (12, 18), 0, -90, 90, colour, 6)
    return picture


def photos(count: int) -> list[np.ndarray]:
    return [np.asarray(draw_photo(number, (SIDE, SIDE))) for number in range(count)]


def recompressed(picture: np.ndarray, quality: int = 60) -> np.ndarray:
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def rescaled(picture: np.ndarray) -> np.ndarray:
    small = Image.fromarray(picture).resize((64, 64), Image.Resampling.BILINEAR)
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def brightened(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture * 1.015 + 1, 0, 255).astype(np.uint8)


COPIES = [recompressed, rescaled, brightened, lambda picture: recompressed(rescaled(brightened(picture)), 85)]


@pytest.mark.parametrize("copy", COPIES, ids=["recompressed", "rescaled", "brightened", "all"])
def test_copies_of_a_photo_are_near_duplicates_and_other_photos_are_not(copy) -> None:
    originals = photos(12)
    pictures = np.stack([*originals, *(copy(picture) for picture in originals)])
    assert near_duplicates(pictures) == [(number, number + 12) for number in range(12)]


@pytest.mark.parametrize("quality", [50, 90])
def test_copies_of_a_photo_on_a_plain_background_are_near_duplicates(quality: int) -> None:
    originals = [shape_photo((180, 40, 40)), shape_photo((40, 90, 180), 200), shape_photo((20, 20, 20), 255)]
    pictures = np.stack([*originals, *(recompressed(picture, quality) for picture in originals)])
    assert near_duplicates(pictures) == [(0, 3), (1, 4), (2, 5)]


def test_one_shape_in_another_colour_or_another_place_is_another_photo() -> None:
    pictures = [shape_photo(colour) for colour in ((180, 40, 40), (40, 60, 170), (200, 180, 60), (150, 40, 80))]
    pictures += [shape_photo((180, 40, 40), place=12), shape_photo((180, 40, 40), background=200)]
    assert near_duplicates(np.stack(pictures)) == []


def test_a_photo_in_quite_another_light_is_another_photo() -> None:
    picture = shape_photo((180, 40, 40), background=200)
    assert near_duplicates(np.stack([picture, picture - 25, picture + 25])) == []


def test_pale_items_are_told_apart_though_they_differ_by_few_levels() -> None:
    pictures = [shape_photo((234, 234, 232)), shape_photo((234, 234, 232), place=14), np.full((SIDE, SIDE, 3), 238)]
    assert near_duplicates(np.stack(pictures).astype(np.uint8)) == []
    assert near_duplicates(np.stack([pictures[2], pictures[0], pictures[2]]).astype(np.uint8)) == [(0, 2)]


def test_drawn_items_are_no_near_duplicates_of_one_another() -> None:
    pictures = [render(item, random_scene(item, 0), 48).image for item in (make_item(3, n) for n in range(10))]
    assert near_duplicates(np.stack(pictures)) == []


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_photos_have_no_duplicates(count: int) -> None:
    assert near_duplicates(np.zeros((count, 16, 16, 3), np.uint8)) == []


def test_photos_of_an_item_and_near_duplicates_make_products_through_one_another() -> None:
    """a and b share a picture, b and c another, so a, b and c are one; d has a picture of its own, twice, and e none.

    Photos: a 0, a 1, b 1', b 2, c 2', c 3, d 4, d 5, e 6.
    """
    shown = photos(7)
    pictures = [shown[0], shown[1], recompressed(shown[1]), shown[2], brightened(shown[2]), *shown[3:]]
    found = products(list("aabbccdde"), np.stack(pictures))
    assert found.tolist() == [0, 0, 0, 0, 0, 0, 3, 3, 4]
    order = np.random.default_rng(0).permutation(9)
    again = products([list("aabbccdde")[place] for place in order], np.stack(pictures)[order])
    np.testing.assert_array_equal(again, found[order])


def test_without_near_duplicates_every_item_is_its_product() -> None:
    assert products(["b", "a", "b"], np.stack(photos(3))).tolist() == [1, 0, 1]


@pytest.mark.parametrize("seed", range(8))
def test_another_view_keeps_the_item_and_its_mask_moves_along(seed: int) -> None:
    """The item is red on grey, so a mask that is not moved with it would be detected."""
    picture = shape_photo((220, 30, 30), background=120)
    mask = (picture[..., 0] > picture[..., 1] + 50).astype(np.uint8) * 255
    view, moved = other_view(np.random.default_rng(seed), picture, mask)
    assert view.shape == picture.shape and view.dtype == moved.dtype == np.uint8
    red = view[..., 0].astype(int) > view[..., 1].astype(int) + 60
    under = moved > 127
    overlap = (red & under).sum() / (red | under).sum()
    assert overlap > 0.93
    assert 0.85**2 * 0.97 < (moved > 127).mean() / (mask > 127).mean() < 1.05**2 * 1.03
    assert not np.array_equal(view, picture)
    if overlap_of(mask, moved) > 0.98:
        pytest.fail("the view hardly moved")


def overlap_of(one: np.ndarray, other: np.ndarray) -> float:
    return float(((one > 127) & (other > 127)).sum() / ((one > 127) | (other > 127)).sum())


def test_views_are_of_the_stated_turns_sizes_places_and_exposures() -> None:
    """Told by the second moments of a bar's mask, and by the grey around it."""
    picture = np.full((SIDE, SIDE, 3), 100, np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[40:56, 24:72] = 255
    rng = np.random.default_rng(0)
    turns, sizes, moves, lights = [], [], [], []
    for _ in range(200):
        view, moved = other_view(rng, picture, mask)
        m = cv2.moments(moved)
        turns.append(np.degrees(0.5 * np.arctan2(2 * m["mu11"], m["mu20"] - m["mu02"])))
        sizes.append(np.sqrt(m["m00"] / cv2.moments(mask)["m00"]))
        moves.append([m["m10"] / m["m00"] - 47.5, m["m01"] / m["m00"] - 47.5])
        lights.append(view.mean(axis=(0, 1)) / 100)
    assert 6.5 < np.abs(turns).max() <= 8.2
    assert 0.84 <= min(sizes) < 0.88 and 1.02 < max(sizes) <= 1.06
    assert 3 < np.abs(moves).max() <= 0.04 * SIDE + 1
    assert np.ptp(np.array(lights), axis=1).max() <= 0.08, "the tint is slight"
    assert 0.86 <= np.min(lights) < 0.92 and 1.08 < np.max(lights) <= 1.14


def test_a_view_is_told_by_its_seed_and_needs_no_mask() -> None:
    picture = photos(1)[0]
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    alone, nothing = other_view(np.random.default_rng(5), picture)
    again, _ = other_view(np.random.default_rng(5), picture, mask)
    assert nothing is None
    np.testing.assert_array_equal(alone, again)
    other, _ = other_view(np.random.default_rng(6), picture)
    assert not np.array_equal(alone, other)
