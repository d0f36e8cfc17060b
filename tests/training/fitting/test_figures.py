"""The figures of each family, active units, and pictures' grids."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from training.fitting.figures import code_use, final_figures, latent_use
from training.fitting.pictures import GAP, tile
from training.protocols import Batch

from ..models.families import GENERATIVE, GRADIENT, VARIATIONAL, batch_of, fitted, make_images


def figures_of(family: str) -> tuple[Any, Batch, dict[str, Any]]:
    model = fitted(family)
    batch = batch_of(model, make_images(12))
    parts = parts_of(batch)
    return model, batch, final_figures(model, lambda: iter(parts), lambda: iter(parts[:1]))


def parts_of(batch: Batch) -> list[Batch]:
    return [Batch(*(None if part is None else part[rows] for part in batch)) for rows in torch.arange(12).split(5)]


@pytest.mark.parametrize("family", GRADIENT)
def test_every_family_has_figures_on_both_sides_that_fit_on_a_card(family: str) -> None:
    model, batch, figures = figures_of(family)
    assert json.loads(json.dumps(figures)) == figures
    for side in ("train", "validation"):
        assert all(math.isfinite(value) for value in figures[side].values())
    if family != "ae":
        nats = figures["train"]["elbo"]
        assert figures["train"]["bits_per_dim"] == pytest.approx(-nats / (3 * 16 * 16 * math.log(2)), abs=1e-4)
    if family in GENERATIVE and family not in VARIATIONAL:
        error = torch.square(model.reconstruct(batch.x) - batch.x).mean().detach()
        assert figures["train"]["squared_error"] == pytest.approx(float(error), abs=1e-6)


@pytest.mark.parametrize("family", VARIATIONAL)
def test_families_with_a_posterior_tell_its_use(family: str) -> None:
    model, batch, figures = figures_of(family)
    noise = torch.Generator().manual_seed(0)  # some families estimate the KL at samples
    kl = torch.cat([model.elbo(part, generator=noise).kl.detach() for part in parts_of(batch)])
    assert figures["train"]["kl"] == pytest.approx(float(kl.sum(dim=1).mean()), abs=1e-3)
    assert figures["kl_per_unit"] == pytest.approx(kl.mean(dim=0).tolist(), abs=1e-4)
    assert 0 <= figures["active_units"] <= model.config.latent_dim


def test_codebooks_are_counted_each_on_its_own() -> None:
    model, batch, figures = figures_of("vq-vae-2")
    for ending, codes in model.code_maps(batch.x).items():
        use = code_use(codes)
        assert figures[f"used_codes{ending}"] == use.used_codes <= 8
        assert figures[f"perplexity{ending}"] == pytest.approx(use.perplexity)
    assert {"used_codes", "perplexity"} <= set(figures_of("vq-vae")[2])


def test_families_that_draw_nothing_have_no_figures() -> None:
    assert figures_of("hog")[2] == {}


def test_units_whose_mean_moves_are_active() -> None:
    means = torch.tensor([[0.0, 0.0, 5.0], [1.0, 0.05, 5.0], [-1.0, -0.05, 5.0]])
    kl = torch.tensor([[1.0, 0.0, 3.0], [3.0, 0.0, 3.0], [2.0, 0.0, 3.0]])
    use = latent_use(means, kl)
    assert use.active_units == 1
    assert use.kl_per_unit == [2.0, 0.0, 3.0]


def test_codes_in_use_are_counted_and_their_entropy_taken() -> None:
    assert code_use(torch.tensor([[5, 5], [0, 7]])) == pytest.approx((3, 2 ** (0.5 * 1 + 2 * 0.25 * 2)))
    assert code_use(torch.zeros(4, 3, dtype=torch.long)) == (1, 1.0)


def test_a_grid_has_its_images_row_by_row_on_white() -> None:
    images = torch.stack([torch.full((1, 4, 5), value) for value in (0.0, 0.5, 1.5)])
    grid = tile(images, columns=2)
    assert grid.shape == (2 * (4 + GAP) + GAP, 2 * (5 + GAP) + GAP, 3)
    assert (grid[GAP : GAP + 4, GAP : GAP + 5] == 0).all()
    assert (grid[GAP : GAP + 4, 2 * GAP + 5 : 2 * GAP + 10] == 128).all()
    assert (grid[2 * GAP + 4 :, :] == 255).all() and (grid[:GAP] == 255).all()
