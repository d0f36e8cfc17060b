"""The search space: centring, principal axes, whitening."""

from __future__ import annotations

import pytest
import torch

from training.layers.search import Moments, SearchSpace


@pytest.fixture
def latents() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(6, 6, generator=generator)
    return 3.0 + torch.randn(500, 6, generator=generator) @ mix


def space(latents: torch.Tensor, dim: int, whitening: float) -> SearchSpace:
    made = SearchSpace(latents.shape[1], dim, whitening)
    made.fit(latents)
    return made


def test_before_a_fit_it_changes_nothing(latents: torch.Tensor) -> None:
    assert torch.equal(SearchSpace(6, 6, 0.5)(latents), latents)


def test_full_whitening_gives_unit_covariance(latents: torch.Tensor) -> None:
    covariance = torch.cov(space(latents, 6, 1.0)(latents).T)
    torch.testing.assert_close(covariance, torch.eye(6), atol=1e-3, rtol=0)


def test_no_whitening_keeps_distances(latents: torch.Tensor) -> None:
    torch.testing.assert_close(torch.pdist(space(latents, 6, 0.0)(latents)), torch.pdist(latents), atol=1e-3, rtol=1e-3)


def test_axes_come_by_falling_variance_to_the_power_that_is_left(latents: torch.Tensor) -> None:
    full = space(latents, 6, 0.0)(latents).var(dim=0)
    half = space(latents, 4, 0.5)(latents).var(dim=0)
    assert bool((full.diff() < 0).all())
    torch.testing.assert_close(half, full[:4].sqrt(), rtol=1e-3, atol=0)


def test_a_dead_latent_is_not_blown_up() -> None:
    latents = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    latents[:, 2] = 0.5
    vectors = space(latents, 3, 1.0)(latents)
    assert bool(torch.isfinite(vectors).all()) and float(vectors[:, 2].abs().max()) < 0.01


@pytest.mark.parametrize(("dim", "whitening"), [(0, 0.5), (7, 0.5), (3, -0.1), (3, 1.1)])
def test_sizes_and_exponents_out_of_range_are_refused(dim: int, whitening: float) -> None:
    with pytest.raises(ValueError, match="must be between"):
        SearchSpace(6, dim, whitening)


def test_zca_keeps_the_distances_of_pca_and_stays_near_the_latents(latents: torch.Tensor) -> None:
    pca, zca = SearchSpace(6, 6, 1.0), SearchSpace(6, 6, 1.0, "zca")
    pca.fit(latents)
    zca.fit(latents)
    torch.testing.assert_close(torch.pdist(zca(latents)), torch.pdist(pca(latents)), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(zca.projection, zca.projection.T, atol=1e-5, rtol=0)
    centred = latents - latents.mean(dim=0)
    aligned = [(centred * made(latents)).sum() for made in (zca, pca)]
    assert aligned[0] > aligned[1]


def test_zca_of_a_few_axes_has_the_size_of_the_latents(latents: torch.Tensor) -> None:
    made = SearchSpace(6, 2, 0.5, "zca")
    made.fit(latents)
    assert made.dim == 6 and made(latents).shape == latents.shape
    assert int(torch.linalg.matrix_rank(made.projection)) == 2


def test_moments_of_batches_are_those_of_all_rows() -> None:
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3.0
    moments = Moments(6)
    for batch in rows.split(13):
        moments.add(batch)
    assert moments.count == 50
    torch.testing.assert_close(moments.mean, rows.mean(dim=0))
    torch.testing.assert_close(moments.covariance(), torch.cov(rows.T))
