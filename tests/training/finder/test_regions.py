"""Several items in one photo: the parts of a mask, hiding them, and predicting again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.data.item_finder import Prediction, finder_side, predict
from training.finder.regions import MAX_REGIONS, MIN_RELATIVE_WEIGHT, find_regions, hide

SIDE, CELLS = 96, 48
GROUND = (90, 140, 200)
Box = tuple[int, int, int, int]  # left, top, right, bottom in cells


def picture(
    *boxes: Box, colours: tuple[tuple[int, int, int], ...] = ((220, 40, 30), (30, 160, 60))
) -> NDArray[np.uint8]:
    pixels = np.full((SIDE, SIDE, 3), GROUND, np.uint8)
    for number, (left, top, right, bottom) in enumerate(boxes):
        pixels[2 * top : 2 * bottom, 2 * left : 2 * right] = colours[number % len(colours)]
    return pixels


def guess(*boxes: Box, quality: float = 0.9, probability: float = 1.0) -> Prediction:
    cells = np.zeros((CELLS, CELLS), np.float32)
    for left, top, right, bottom in boxes:
        cells[top:bottom, left:right] = probability
    return Prediction(cells, quality)


class Script:
    """A finder with scripted predictions; one prediction too many is an error."""

    def __init__(self, *guesses: Prediction) -> None:
        self.guesses = list(guesses)
        self.seen: list[NDArray[np.uint8]] = []

    def __call__(self, pixels: NDArray[np.uint8]) -> Prediction:
        self.seen.append(pixels)
        return self.guesses[len(self.seen) - 1]


def stripes() -> NDArray[np.uint8]:
    """A background that is never plain."""
    pixels = picture()
    pixels[:, np.arange(SIDE) % 16 < 4] = 0
    return pixels


def cells(box: tuple[float, float, float, float]) -> tuple[float, ...]:
    return tuple(round(CELLS * edge, 6) for edge in box)


def test_parts_of_one_mask_are_items_the_largest_first() -> None:
    small, large, speck = (2, 3, 10, 12), (20, 20, 40, 44), (44, 2, 46, 4)
    found = find_regions(stripes(), Script(guess(small, large, speck), guess(quality=0.9)))
    assert [cells(region.box) for region in found] == [large, small]
    assert [region.weight for region in found] == pytest.approx([20 * 24 / CELLS**2, 8 * 9 / CELLS**2])
    assert {region.confidence for region in found} == {0.9}


def test_what_is_found_by_looking_again_follows_until_the_finder_doubts() -> None:
    first, second, third = (2, 2, 20, 20), (26, 2, 44, 18), (2, 26, 16, 40)
    script = Script(guess(first), guess(second, quality=0.6), guess(third, quality=0.45))
    found = find_regions(stripes(), script)
    assert [(cells(region.box), region.confidence) for region in found] == [(first, 0.9), (second, 0.6)]
    assert len(script.seen) == 3


def test_a_photo_in_which_nothing_is_found_has_no_regions() -> None:
    assert find_regions(stripes(), Script(guess((2, 2, 20, 20), quality=0.2))) == []
    assert find_regions(stripes(), Script(guess())) == []


def test_leftovers_of_an_item_and_items_within_it_are_dropped() -> None:
    item = (8, 8, 32, 32)
    leftover, inner = (32, 10, 40, 30), (12, 12, 24, 24)
    ring = guess(item)
    ring.probability[11:25, 11:25] = 0.0
    assert [cells(r.box) for r in find_regions(stripes(), Script(ring, guess(inner), guess()))] == [item]
    assert [cells(r.box) for r in find_regions(stripes(), Script(guess(item), guess(leftover)))] == [item]


def test_no_second_look_where_the_ground_is_even() -> None:
    box = (10, 10, 30, 30)
    script = Script(guess(box))
    assert len(find_regions(picture(box), script)) == 1 and len(script.seen) == 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(*[st.integers(0, CELLS - 1)] * 2, *[st.integers(1, 24)] * 2), max_size=12), st.floats(0.51, 1.0)
)
def test_regions_are_few_inside_and_in_order(corners: list[tuple[int, int, int, int]], probability: float) -> None:
    boxes = [(x, y, min(CELLS, x + w), min(CELLS, y + h)) for x, y, w, h in corners]
    found = find_regions(stripes(), Script(guess(*boxes, probability=probability), guess()))
    assert len(found) <= MAX_REGIONS
    weights = [region.weight for region in found]
    assert weights == sorted(weights, reverse=True)
    assert all(weight >= MIN_RELATIVE_WEIGHT * weights[0] for weight in weights)
    for left, top, right, bottom in (region.box for region in found):
        assert 0.0 <= left < right <= 1.0 and 0.0 <= top < bottom <= 1.0


def test_hiding_leaves_the_rest_and_takes_the_colours_around() -> None:
    box = (16, 20, 28, 30)
    pixels = picture(box)
    covered = guess(box).probability > 0.5
    np.testing.assert_array_equal(hide(pixels, covered), picture())
    other = stripes()
    outside = np.ones((SIDE, SIDE), bool)
    outside[36:64, 28:60] = False
    np.testing.assert_array_equal(hide(other, covered)[outside], other[outside])


def test_a_picture_that_is_hidden_whole_is_white() -> None:
    assert hide(picture(), np.ones((CELLS, CELLS), bool)).min() == 255


@pytest.mark.parametrize("places", [[(4, 6, 20, 24)], [(4, 6, 20, 24), (27, 22, 43, 42)]])
def test_the_shipped_finder_finds_each_of_the_things(places: list[Box]) -> None:
    assert finder_side() == SIDE
    found = find_regions(picture(*places), predict)
    assert len(found) == len(places)
    boxes = sorted(cells(region.box) for region in found)
    assert np.abs(np.array(boxes) - np.array(places)).max() <= 2.5
