"""Flows over latents: densities, and priors of a VAE."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.training.models.families import as_encoder, fitted, make_images
from training.fitting.density import DensitySettings
from training.latent_flow import LatentFlow, LatentFlowConfig, fit_prior, posterior_samples, sample_images
from training.layers.gaussian import draw, log_standard_normal
from training.protocols import Batch

QUICK = DensitySettings(epochs=15, batch_size=128, lr=5e-3)


def ring(count: int, seed: int, dim: int = 5) -> torch.Tensor:
    """Vectors on a noisy ring in the first two of their numbers, narrow in the others."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2.0 * math.pi * torch.rand(count, generator=generator)
    vectors = 0.1 * torch.randn(count, dim, generator=generator)
    vectors[:, :2] += 2.0 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return vectors


@pytest.fixture(scope="module")
def flow() -> LatentFlow:
    torch.manual_seed(0)
    found = LatentFlow(LatentFlowConfig(vector_dim=5, steps=4, hidden=(32,)))
    found.fit(ring(3000, 0), ring(1000, 1), QUICK)
    return found


@pytest.fixture(scope="module")
def of_two_axes() -> LatentFlow:
    torch.manual_seed(0)
    found = LatentFlow(LatentFlowConfig(vector_dim=5, dim=3, steps=2, hidden=(16, 16)))
    found.fit(ring(2000, 0), ring(400, 1), DensitySettings(epochs=5, batch_size=128))
    return found


@pytest.mark.slow
def test_a_flow_of_latents_beats_the_gaussian_of_their_covariance(flow: LatentFlow) -> None:
    train, held_out = ring(3000, 0), ring(2000, 7)
    gaussian = torch.distributions.MultivariateNormal(train.mean(dim=0), torch.cov(train.T))
    with torch.no_grad():
        nats = float(flow.log_prob(held_out).mean())
    assert nats > float(gaussian.log_prob(held_out).mean()) + 0.5
    assert flow.log_prob(held_out[:6].reshape(2, 3, 5)).shape == (2, 3)


@pytest.mark.slow
def test_the_density_is_that_of_the_vectors_and_its_samples_have_it(flow: LatentFlow) -> None:
    """The volume of the whitening counts: the density integrates to 1, by importance sampling."""
    drawn = flow.sample(4000, torch.Generator().manual_seed(0))
    assert float((drawn[:, :2].norm(dim=1) - 2.0).abs().median()) < 0.25
    wide = torch.distributions.MultivariateNormal(drawn.mean(dim=0), 1.5 * torch.cov(drawn.T))
    torch.manual_seed(1)
    points = wide.sample((200_000,))
    with torch.no_grad():
        mass = (flow.log_prob(points) - wide.log_prob(points)).exp().mean()
    assert float(mass) == pytest.approx(1.0, abs=0.05)


@pytest.mark.slow
def test_a_flow_says_what_it_cannot_do(of_two_axes: LatentFlow) -> None:
    with pytest.raises(ValueError, match="the flow describes 3 of 5 axes; fit one with all axes"):
        of_two_axes.sample(3)
    with pytest.raises(ValueError, match="a density needs at least 20 held-out vectors, not 5"):
        LatentFlow(LatentFlowConfig(vector_dim=5)).fit(ring(50, 0), ring(5, 1), QUICK)


def test_a_prior_in_the_bound_of_a_vae_is_added_where_the_gaussian_was() -> None:
    vae, x = fitted("vae"), make_images(6)

    def bound(**options: Any) -> torch.Tensor:
        return vae.importance_weighted(Batch(x, x), 1, torch.Generator().manual_seed(3), **options).detach()

    q = vae.posterior(x)
    z = draw(q, 1, torch.Generator().manual_seed(3))[0]
    wide = bound(log_prior=lambda latents: log_standard_normal(latents / 2.0) - latents.shape[-1] * math.log(2.0))
    difference = 0.375 * z.square().sum(dim=1) - z.shape[1] * math.log(2.0)
    torch.testing.assert_close(wide - bound(), difference.detach(), atol=1e-3, rtol=0)


def test_a_fitted_prior_raises_the_bound_of_a_vae() -> None:
    """A VAE that has hardly been trained has latents that N(0, I) describes poorly once they are moved."""
    vae = fitted("vae")
    with torch.no_grad():
        vae.encoder.mean.bias += 3.0
        noise = torch.Generator().manual_seed(0)
        seen, others = (
            draw(vae.posterior(make_images(count, seed=seed)), 4, noise).flatten(0, 1)
            for count, seed in ((200, 1), (50, 2))
        )
    torch.manual_seed(0)
    prior = LatentFlow(LatentFlowConfig(vector_dim=seen.shape[1], steps=2, hidden=(16,)))
    prior.fit(seen, others, DensitySettings(epochs=4, batch_size=64, lr=5e-3))
    x = make_images(20, seed=3)
    with torch.no_grad():
        plain, better = (
            vae.importance_weighted(Batch(x, x), 8, torch.Generator().manual_seed(0), **options).mean()
            for options in ({}, {"log_prior": prior.log_prob})
        )
    assert float(better) > float(plain) + 10.0


def test_a_prior_fitted_to_photos_draws_their_latents() -> None:
    """Latents that were moved by 3 are drawn around 3, where N(0, I) would never be."""
    vae = fitted("vae")
    with torch.no_grad():
        vae.encoder.mean.bias += 3.0
    encoder = as_encoder(vae, "vae")
    prior = fit_prior(encoder, make_images(120, seed=1), epochs=4)
    drawn = prior.sample(500, torch.Generator().manual_seed(0))
    seen = posterior_samples(encoder, make_images(120, seed=1), 1, torch.Generator().manual_seed(1))
    assert seen.shape == (120, drawn.shape[1])
    assert float((drawn.mean(dim=0) - seen.mean(dim=0)).abs().max()) < 0.5
    images = sample_images(encoder, prior, 70, seed=3)
    assert images.shape == (70, 3, vae.config.size, vae.config.size)
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    torch.testing.assert_close(images, sample_images(encoder, prior, 70, seed=3))


def test_posterior_samples_are_of_each_image_in_turn() -> None:
    """With hardly any noise, each draw is the mean of its image, beyond one block of images too."""
    vae, x = fitted("vae"), make_images(70)
    with torch.no_grad():
        vae.encoder.mean.weight.mul_(1000.0)  # images lie far apart, compared with the least deviation, .007
        vae.encoder.log_variance.weight.zero_()
        vae.encoder.log_variance.bias.fill_(-30.0)
        means = vae.posterior(x).mean
    drawn = posterior_samples(as_encoder(vae, "vae"), x, 3, torch.Generator().manual_seed(0)).reshape(3, 70, -1)
    assert float((means[1:] - means[:-1]).abs().amax(dim=1).min()) > 0.1
    torch.testing.assert_close(drawn, means.expand(3, -1, -1), atol=0.05, rtol=0)
