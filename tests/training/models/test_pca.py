"""PCA against the singular value decomposition of all images at once, and its density against the textbook's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as SklearnPca
from torch import Tensor

from training.layers.likelihoods import BIN
from training.models.pca import Pca, PcaConfig

from .families import make_images


def low_rank(count: int, rank: int, seed: int = 0) -> Tensor:
    """Images of 8 x 8 pixels in a space of few dimensions, with well separated variances."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(64, rank, generator=generator, dtype=torch.float64))[0].T
    spread = 0.5 / torch.arange(1, rank + 1, dtype=torch.float64)
    points = torch.randn(count, rank, generator=generator, dtype=torch.float64) * spread
    return (0.5 + points @ axes).reshape(count, 1, 8, 8)


def fit(x: Tensor, batch: int, **settings: int) -> Pca:
    pca = Pca(PcaConfig(size=8, channels=1, **settings)).double()
    for part in x.split(batch):
        pca.partial_fit(part)
    return pca


@pytest.mark.parametrize("batch", [1, 7, 50, 200])
def test_batch_by_batch_equals_the_decomposition_of_all_at_once(batch: int) -> None:
    x = low_rank(200, 10)
    pca = fit(x, batch, components=4)
    flat = x.flatten(1)
    _, singular, axes = torch.linalg.svd(flat - flat.mean(dim=0), full_matrices=False)
    torch.testing.assert_close(pca.mean, flat.mean(dim=0))
    torch.testing.assert_close(pca.variances, torch.square(singular[:4]) / 199)
    torch.testing.assert_close((pca.components @ axes[:4].T).abs(), torch.eye(4).double(), atol=1e-8, rtol=0)


def test_it_agrees_with_scikit_learn() -> None:
    x = low_rank(120, 30)
    pca = fit(x, 120, components=6)
    reference = SklearnPca(6, svd_solver="full").fit(x.flatten(1).numpy())
    np.testing.assert_allclose(pca.variances.numpy(), reference.explained_variance_, rtol=1e-10)
    np.testing.assert_allclose(
        np.abs(pca.latent(x).numpy()), np.abs(reference.transform(x.flatten(1).numpy())), atol=1e-10
    )
    np.testing.assert_allclose(float(pca.noise), reference.noise_variance_, rtol=1e-6)
    np.testing.assert_allclose(pca.log_density(x).numpy(), reference.score_samples(x.flatten(1).numpy()), rtol=1e-4)


def test_full_rank_images_lose_little_by_the_components_forgotten() -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = make_images(300, size=8, channels=1).double()
    x = smooth + 0.05 * torch.randn(300, 1, 8, 8, generator=generator, dtype=torch.float64)
    pca = fit(x, 20, components=5, oversample=4)
    reference = torch.linalg.eigvalsh(torch.cov(x.flatten(1).T)).flip(0)[:5]
    torch.testing.assert_close(pca.variances, reference, rtol=2e-3, atol=0)


def test_reconstructions_are_the_nearest_points_of_the_subspace() -> None:
    x = low_rank(100, 3)
    pca = fit(x, 10, components=3)
    inside = (0.5 + 0.2 * (x - 0.5)).clamp(0.0, 1.0)
    torch.testing.assert_close(pca.reconstruct(inside), inside, atol=1e-3, rtol=0)
    one = fit(x, 10, components=1)
    residual = (one.reconstruct(inside) - inside).flatten(1)
    torch.testing.assert_close(residual @ one.components.T, torch.zeros(100, 1).double(), atol=1e-6, rtol=0)


def test_the_density_is_that_of_the_gaussian_it_stands_for() -> None:
    x = make_images(200, size=8, channels=1).double()
    pca = fit(x, 50, components=5)
    noise = pca.noise
    scaled = pca.components * (pca.variances - noise).sqrt()[:, None]
    covariance = scaled.T @ scaled + noise * torch.eye(64, dtype=torch.float64)
    gaussian = torch.distributions.MultivariateNormal(pca.mean, covariance)
    torch.testing.assert_close(pca.log_density(x), gaussian.log_prob(x.flatten(1)), rtol=1e-8, atol=0)


def test_the_bound_on_8_bit_images_stays_below_their_probability() -> None:
    x = make_images(200, size=8, channels=1).double()
    pca = fit(x, 50, components=5)
    generator = torch.Generator().manual_seed(0)
    inside_bin = (torch.rand(4000, 1, 1, 8, 8, generator=generator, dtype=torch.float64) - 0.5) * BIN
    density = pca.log_density((x[:3] + inside_bin).flatten(0, 1)).reshape(4000, 3)
    mass = torch.logsumexp(density, dim=0) - np.log(4000) + 64 * np.log(BIN)
    bound = pca.log_likelihood(x[:3]).nats.double()
    assert bool((bound < mass).all())
    torch.testing.assert_close(bound, density.mean(dim=0) + 64 * np.log(BIN), atol=0.5, rtol=0)


def test_whitened_vectors_have_unit_variance() -> None:
    x = low_rank(300, 8)
    pca = Pca(PcaConfig(size=8, channels=1, components=4, whitening=1.0)).double()
    pca.partial_fit(x)
    torch.testing.assert_close(torch.cov(pca.embed(x).T), torch.eye(4).double(), atol=1e-8, rtol=0)


def test_the_order_of_signs_is_fixed_so_that_one_data_set_gives_one_encoder() -> None:
    x = low_rank(100, 6)
    mirrored = fit(1.0 - x, 100, components=3)
    components = fit(x, 100, components=3).components
    torch.testing.assert_close(mirrored.components, components, atol=1e-8, rtol=0)
    assert bool((components.gather(1, components.abs().argmax(dim=1, keepdim=True)) > 0).all())


def test_too_few_images_are_refused_with_their_number() -> None:
    pca = fit(low_rank(4, 3), 4, components=4)
    with pytest.raises(ValueError, match=r"components must be below the number of training images \(4\), not 4"):
        pca.check_fitted()
