"""The parameterless families: pixels and HOG."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.feature import hog

from training.models.hog import Hog, HogConfig
from training.models.pixels import Pixels, PixelsConfig

from .families import make_images


def test_the_cosine_of_pixels_is_the_correlation_of_the_images() -> None:
    x = make_images(2, size=8)
    a, b = torch.nn.functional.normalize(Pixels(PixelsConfig(size=8)).embed(x), dim=1)
    expected = np.corrcoef(x.flatten(1).numpy())[0, 1]
    assert float(a @ b) == pytest.approx(expected, abs=1e-5)


def test_brightness_and_contrast_do_not_change_what_pixels_find() -> None:
    x = make_images(3, size=8)
    pixels = Pixels(PixelsConfig(size=8))
    a, b = (torch.nn.functional.normalize(pixels.embed(images), dim=1) for images in (x, 0.2 + 0.5 * x))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_hog_has_the_papers_geometry() -> None:
    assert Hog(HogConfig()).dim == 7 * 7 * 2 * 2 * 9


def test_hog_of_grey_images_is_that_of_their_one_channel() -> None:
    x = make_images(1, channels=1)
    expected = hog(x[0, 0].numpy(), orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2))
    np.testing.assert_allclose(Hog(HogConfig(size=16, channels=1)).embed(x)[0].numpy(), expected, rtol=1e-5)


def test_hog_takes_the_channel_with_the_largest_gradient() -> None:
    edge = torch.zeros(1, 3, 16, 16)
    edge[:, 1, :, 8:] = 1.0  # only green has the edge
    grey = edge[:, 1:2]
    colour = Hog(HogConfig(size=16)).embed(edge)
    torch.testing.assert_close(colour, Hog(HogConfig(size=16, channels=1)).embed(grey))


def test_hog_refuses_blocks_larger_than_the_image() -> None:
    with pytest.raises(ValueError, match="block must be at most 2 cells, not 3"):
        HogConfig(size=16, block=3)
