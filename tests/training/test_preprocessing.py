"""Boxes of prepared images, told in shares of the images that they were made of."""

import numpy as np
import pytest

from training.preprocessing import Preprocessing


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize(("width", "height"), [(80, 40), (30, 90), (50, 50)])
def test_a_box_of_the_prepared_image_is_found_in_the_image(fit: str, width: int, height: int) -> None:
    """A bright rectangle of the image, found in the square, is where it was."""
    image = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = 0.4 * width, 0.45 * height, 0.6 * width, 0.6 * height
    image[round(top) : round(bottom), round(left) : round(right)] = 255
    prepared = Preprocessing(256, 3, fit)  # type: ignore[arg-type]
    square = prepared.apply(np.repeat(np.repeat(image, 4, axis=0), 4, axis=1))[0]
    if fit == "pad":
        bars = prepared.apply(np.zeros((4 * height, 4 * width, 3), np.uint8))[0]
        square = np.where(bars > 127, 0, square).astype(np.uint8)
    rows, columns = np.nonzero(square > 127)
    box = (columns.min() / 256, rows.min() / 256, (columns.max() + 1) / 256, (rows.max() + 1) / 256)
    found = prepared.to_source(box, width, height)
    expected = (round(left) / width, round(top) / height, round(right) / width, round(bottom) / height)
    assert np.abs(np.subtract(found, expected)).max() < 0.012


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_the_whole_square_is_the_whole_image(fit: str) -> None:
    assert Preprocessing(64, 3, fit).to_source((0.0, 0.0, 1.0, 1.0), 30, 70) == (0.0, 0.0, 1.0, 1.0)  # type: ignore[arg-type]
