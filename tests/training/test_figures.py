"""Active units, and pictures' grids."""

from __future__ import annotations

import pytest
import torch

from training.figures import code_use, latent_use
from training.pictures import GAP, tile


def test_units_whose_mean_moves_are_active() -> None:
    means = torch.tensor([[0.0, 0.0, 5.0], [1.0, 0.05, 5.0], [-1.0, -0.05, 5.0]])
    kl = torch.tensor([[1.0, 0.0, 3.0], [3.0, 0.0, 3.0], [2.0, 0.0, 3.0]])
    use = latent_use(means, kl)
    assert use.active_units == 1
    assert use.kl_per_unit == [2.0, 0.0, 3.0]


def test_codes_in_use_are_counted_and_their_entropy_taken() -> None:
    assert code_use(torch.tensor([[5, 5], [0, 7]])) == (3, pytest.approx(2 ** (0.5 * 1 + 2 * 0.25 * 2)))
    assert code_use(torch.zeros(4, 3, dtype=torch.long)) == (1, 1.0)


def test_a_grid_has_its_images_row_by_row_on_white() -> None:
    images = torch.stack([torch.full((1, 4, 5), value) for value in (0.0, 0.5, 1.5)])
    grid = tile(images, columns=2)
    assert grid.shape == (2 * (4 + GAP) + GAP, 2 * (5 + GAP) + GAP, 3)
    assert (grid[GAP : GAP + 4, GAP : GAP + 5] == 0).all()
    assert (grid[GAP : GAP + 4, 2 * GAP + 5 : 2 * GAP + 10] == 128).all()
    assert (grid[2 * GAP + 4 :, :] == 255).all() and (grid[:GAP] == 255).all()
