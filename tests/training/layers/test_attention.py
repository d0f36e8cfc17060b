"""Windows of Gaussian filters against direct loops over the equations of DRAW, and what they do to images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.layers.attention import Window, WindowHead, extent, filter_bank, read_patch, write_patch


def window(x: float, y: float, variance: float, stride: float, intensity: float) -> Window:
    return Window(*(torch.tensor([value], dtype=torch.float64) for value in (x, y, variance, stride, intensity)))


def loop_bank(centre: float, stride: float, variance: float, filters: int, size: int) -> Tensor:
    """Equations 19 and 25, filter by filter and pixel by pixel."""
    bank = torch.zeros(filters, size, dtype=torch.float64)
    for i in range(1, filters + 1):
        mean = centre + (i - filters / 2 - 0.5) * stride
        weights = [math.exp(-((a - mean) ** 2) / (2 * variance)) for a in range(1, size + 1)]
        for a in range(size):
            bank[i - 1, a] = weights[a] / sum(weights)
    return bank


@pytest.mark.parametrize("filters", [2, 3, 5])
def test_a_filter_bank_equals_a_double_loop_over_the_equations(filters: int) -> None:
    centre, stride, variance = torch.tensor([[4.5, 2.0, 9.3], [1.0, 0.4, 2.2], [0.5, 3.0, 1.1]], dtype=torch.float64)
    banks = filter_bank(centre, stride, variance, filters, 9)
    for each, bank in enumerate(banks):
        torch.testing.assert_close(
            bank, loop_bank(float(centre[each]), float(stride[each]), float(variance[each]), filters, 9)
        )
    torch.testing.assert_close(banks.sum(dim=2), torch.ones(3, filters, dtype=torch.float64))


def test_reading_and_writing_equal_loops_with_rows_by_y_and_columns_by_x() -> None:
    size, filters = 7, 3
    image = torch.rand(1, 2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    patch = torch.rand(1, 2, filters, filters, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    at = window(x=3.2, y=5.1, variance=0.8, stride=1.3, intensity=2.5)
    columns, rows = loop_bank(3.2, 1.3, 0.8, filters, size), loop_bank(5.1, 1.3, 0.8, filters, size)
    read = torch.zeros(1, 2, filters, filters, dtype=torch.float64)
    written = torch.zeros(1, 2, size, size, dtype=torch.float64)
    for c in range(2):
        for i in range(filters):
            for j in range(filters):
                for b in range(size):
                    for a in range(size):
                        weight = rows[i, b] * columns[j, a]
                        read[0, c, i, j] += 2.5 * weight * image[0, c, b, a]
                        written[0, c, b, a] += weight * patch[0, c, i, j] / 2.5
    torch.testing.assert_close(read_patch(image, at, filters), read)
    torch.testing.assert_close(write_patch(patch, at, size), written)


@pytest.mark.parametrize("size", [8, 9])
def test_one_sharp_filter_per_pixel_reads_and_writes_the_image_itself(size: int) -> None:
    image = torch.rand(1, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    middle = (size + 1) / 2
    at = window(x=middle, y=middle, variance=0.01, stride=1.0, intensity=3.0)
    patch = read_patch(image, at, size)
    torch.testing.assert_close(patch, 3.0 * image, atol=1e-12, rtol=0)
    torch.testing.assert_close(write_patch(patch, at, size), image, atol=1e-12, rtol=0)


def test_a_window_far_outside_stays_finite_and_has_gradients() -> None:
    centre = torch.tensor([-500.0], requires_grad=True)
    bank = filter_bank(centre, torch.tensor([1.0]), torch.tensor([0.01]), 2, 8)
    torch.testing.assert_close(bank[0, :, 0], torch.ones(2))
    bank[0, 0, 1].backward()
    assert centre.grad is not None and bool(torch.isfinite(centre.grad).all())


def test_a_head_of_zeros_covers_the_image_from_the_first_pixel_to_the_last() -> None:
    head = WindowHead(hidden=3, size=9, filters=5).double()
    with torch.no_grad():
        head.numbers.weight.zero_()
        head.numbers.bias.zero_()
        found = head(torch.randn(2, 3, dtype=torch.float64))
    bank = filter_bank(found.x, found.stride, found.variance, 5, 9)
    assert bank.argmax(dim=2).tolist() == [[0, 2, 4, 6, 8]] * 2  # delta = (max(A, B) - 1) / (N - 1)
    assert float(found.intensity[0]) == float(found.variance[0]) == 1.0
    assert extent(found, 5)[0].tolist() == [-0.5, -0.5, 9.5, 9.5, 1.0]


def test_the_numbers_of_a_head_are_those_of_equations_21_to_24() -> None:
    head = WindowHead(hidden=1, size=11, filters=3).double()
    with torch.no_grad():
        head.numbers.weight.zero_()
        head.numbers.bias.copy_(torch.tensor([0.5, -0.5, math.log(4.0), math.log(0.2), math.log(3.0)]))
        found = head(torch.zeros(1, 1, dtype=torch.float64))
    assert torch.cat(found).tolist() == pytest.approx([12 / 2 * 1.5, 12 / 2 * 0.5, 4.0, 10 / 2 * 0.2, 3.0])
    assert extent(found, 3)[0].tolist() == pytest.approx([7.0, 1.0, 10.0, 4.0, 2.0])
