"""Cropping and resizing by products of matrices: Pillow's filter, and boxes of one's own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from training.layers.resample import crop, filter_weights, resize


@pytest.mark.parametrize("size", [7, 16, 24, 41])
def test_resizing_equals_pillows_bilinear_filter_to_its_rounding(size):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 24, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)).astype(float)
    x = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float()
    got = resize(x, size)[0].permute(1, 2, 0).numpy()
    assert np.abs(got - expected).max() <= 1.01


def test_a_box_is_cut_out_as_pillow_does_where_only_its_own_pixels_are_read():
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels)
    expected = np.asarray(picture.resize((16, 16), Image.Resampling.BILINEAR, box=(8, 4, 24, 20))).astype(float)
    x = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float()
    boxes = torch.tensor([[8 / 32, 4 / 32, 24 / 32, 20 / 32]])
    assert np.abs(crop(x, boxes, 16)[0].permute(1, 2, 0).numpy() - expected).max() <= 1.01


@settings(deadline=None, max_examples=50)
@given(st.floats(-0.5, 0.9), st.floats(0.05, 1.5), st.integers(4, 40), st.integers(1, 40))
def test_weights_of_every_output_pixel_sum_to_one(start, length, side, out):
    start_of, stop_of = torch.tensor([start]), torch.tensor([start + length])
    weights = filter_weights(start_of, stop_of, side, out)
    assert weights.shape == (1, out, side)
    assert torch.all(weights >= 0)
    torch.testing.assert_close(weights.sum(2), torch.ones(1, out))


def test_each_picture_of_a_batch_has_its_own_box_and_boxes_have_gradients():
    x = torch.rand(2, 3, 20, 20)
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.7], [0.3, 0.2, 0.9, 0.95]], requires_grad=True)
    both = crop(x, boxes, 8)
    for row in range(2):
        torch.testing.assert_close(both[row : row + 1], crop(x[row : row + 1], boxes[row : row + 1], 8))
    both.square().sum().backward()
    assert boxes.grad is not None and bool((boxes.grad != 0).all())


def test_beyond_its_edges_a_picture_goes_on_with_its_nearest_pixels():
    x = torch.rand(1, 1, 8, 8)
    out = crop(x, torch.tensor([[-1.0, 0.0, 0.0, 1.0]]), 8)
    torch.testing.assert_close(out, x[..., :1].expand(-1, -1, -1, 8))
