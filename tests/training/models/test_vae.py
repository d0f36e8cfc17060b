"""The VAE's formulas against what they should equal."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from training.layers.gaussian import draw, kl_to_standard_normal
from training.layers.likelihoods import BIN
from training.models.vae import Vae, VaeConfig
from training.protocols import Batch, Posterior

from .families import make_images


def tiny(**changes: Any) -> Vae:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"size": 8, "widths": (6, 8), "decoder_widths": (8, 6), "latent_dim": 3, **changes}
    return Vae(VaeConfig(**settings)).double().eval()


@pytest.fixture
def posterior() -> Posterior:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    return Posterior(mean, log_variance)


def test_the_kl_equals_that_of_torch_distributions(posterior: Posterior) -> None:
    q = torch.distributions.Normal(posterior.mean, torch.exp(0.5 * posterior.log_variance))
    prior = torch.distributions.Normal(torch.zeros_like(posterior.mean), torch.ones_like(posterior.mean))
    kl = kl_to_standard_normal(posterior)
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(q, prior))
    assert float(kl.min()) >= 0.0
    assert float(kl_to_standard_normal(Posterior(torch.zeros(1, 2), torch.zeros(1, 2))).abs().max()) == 0.0


def test_the_kl_is_the_mean_of_log_ratios_over_samples(posterior: Posterior) -> None:
    z = draw(posterior, 200_000, torch.Generator().manual_seed(1))
    q = torch.distributions.Normal(posterior.mean, torch.exp(0.5 * posterior.log_variance))
    prior = torch.distributions.Normal(torch.zeros_like(posterior.mean), torch.ones_like(posterior.mean))
    monte_carlo = (q.log_prob(z) - prior.log_prob(z)).mean(dim=0)
    torch.testing.assert_close(monte_carlo, kl_to_standard_normal(posterior), atol=0.02, rtol=0.01)


def test_samples_have_the_posteriors_mean_and_standard_deviation(posterior: Posterior) -> None:
    z = draw(posterior, 100_000, torch.Generator().manual_seed(2))
    torch.testing.assert_close(z.mean(dim=0), posterior.mean, atol=0.03, rtol=0)
    torch.testing.assert_close(z.std(dim=0), torch.exp(0.5 * posterior.log_variance), atol=0.03, rtol=0)


@pytest.mark.parametrize("likelihood", ["gaussian", "logistic"])
def test_the_importance_weighted_bound_rises_with_its_samples(likelihood: str) -> None:
    vae = tiny(likelihood=likelihood, scale=0.2)
    x = make_images(16, size=8).double()
    with torch.no_grad():
        vae.encoder.mean.bias.fill_(1.0)  # a posterior that is off, so that the bounds differ
        bounds = [
            torch.stack(
                [vae.importance_weighted(Batch(x, x), k, torch.Generator().manual_seed(s)) for s in range(20)]
            ).mean()
            for k in (1, 8, 64)
        ]
        elbo = vae.elbo(Batch(x, x), samples=200, generator=torch.Generator().manual_seed(0)).elbo.mean()
    assert bounds[0] < bounds[1] < bounds[2]
    torch.testing.assert_close(bounds[0], elbo, atol=0.5, rtol=0)


def test_many_importance_samples_reach_the_likelihood_found_by_integration() -> None:
    vae = tiny(latent_dim=1, scale=0.5)
    x = make_images(3, size=8).double()
    grid = torch.linspace(-6.0, 6.0, 1001, dtype=torch.float64)
    with torch.no_grad():
        prior = -0.5 * (grid**2 + math.log(2 * math.pi))
        log_joint = vae.likelihood(x, vae.decoder(grid[:, None])[:, None]) + prior[:, None]
        exact = torch.logsumexp(log_joint, dim=0) + math.log(float(grid[1] - grid[0]))
        bound = vae.importance_weighted(Batch(x, x), 4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(bound, exact, atol=0.02, rtol=0)


def linear_gaussian() -> tuple[Vae, torch.Tensor, torch.Tensor]:
    """A VAE without hidden layers, images, and the logarithms of their likelihoods in closed form.

    With x = b + W z + s e, z and e standard normal, x is N(b, W W' + s^2 I); the posterior is Gaussian as well, and
    the encoder is given its covariance but not its mean, so that the bounds are not tight.
    """
    vae = tiny(network="mlp", hidden=(), channels=1, latent_dim=2, scale=0.3)
    generator = torch.Generator().manual_seed(4)
    x = torch.round(torch.rand(6, 1, 8, 8, generator=generator, dtype=torch.float64) * 255.0) / 255.0
    with torch.no_grad():
        weight = 0.5 * vae.decoder.out.weight  # the decoder's output o stands for the mean 0.5 + 0.5 o
        offset = 0.5 + 0.5 * vae.decoder.out.bias
        precision = torch.eye(2, dtype=torch.float64) + weight.T @ weight / 0.3**2
        vae.encoder.log_variance.weight.zero_()
        vae.encoder.log_variance.bias.copy_(-precision.diagonal().log())
        vae.encoder.mean.weight.zero_()
        covariance = weight @ weight.T + 0.3**2 * torch.eye(64, dtype=torch.float64)
        exact = torch.distributions.MultivariateNormal(offset, covariance).log_prob(x.flatten(1))
    per_value = math.log(BIN) - BIN**2 / (24 * 0.3**2)  # density to probability: see training.layers.likelihoods
    return vae, x, exact + 64 * per_value


def test_importance_weighted_bounds_rise_to_the_exact_likelihood_of_a_linear_gaussian_model() -> None:
    vae, x, exact = linear_gaussian()
    with torch.no_grad():
        bounds = torch.stack(
            [
                torch.stack(
                    [vae.importance_weighted(Batch(x, x), k, torch.Generator().manual_seed(s)) for s in range(100)]
                ).mean(dim=0)
                for k in (1, 4, 16, 64)
            ]
        )
        limit = vae.importance_weighted(Batch(x, x), 60_000, torch.Generator().manual_seed(0))
    assert bool((bounds.diff(dim=0) > 0).all())
    assert bool((bounds[-1] < exact).all())
    assert float((bounds[0] - exact).abs().min()) > 0.3  # the first bound is not tight: there was something to gain
    torch.testing.assert_close(limit, exact, atol=0.05, rtol=0)


def test_many_samples_come_in_parts_that_fit_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = tiny()
    x = make_images(3, size=8).double()
    whole = vae.importance_weighted(Batch(x, x), 50, torch.Generator().manual_seed(0))
    seen: list[int] = []
    monkeypatch.setattr("training.models.vae.VALUES_AT_ONCE", 30 * x[0].numel())
    vae.decoder.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    parts = vae.importance_weighted(Batch(x, x), 50, torch.Generator().manual_seed(0))
    assert max(seen) <= 30 and sum(seen) == 150
    torch.testing.assert_close(parts, whole, atol=1.0, rtol=0)  # other draws: the parts are drawn apart


def test_a_target_other_than_the_input_is_what_the_likelihood_is_of() -> None:
    vae = tiny(scale=0.1)
    x, target = make_images(4, size=8).double(), make_images(4, size=8, seed=1).double()
    noise = [torch.Generator().manual_seed(0) for _ in range(2)]
    own = vae.elbo(Batch(x, x), generator=noise[0])
    other = vae.elbo(Batch(x, target), generator=noise[1])
    assert torch.equal(own.kl, other.kl)
    assert not torch.allclose(own.log_likelihood, other.log_likelihood)


def test_the_parts_of_the_bound_add_up() -> None:
    x = make_images(5, size=8).double()
    bound = tiny().elbo(Batch(x, x))
    torch.testing.assert_close(bound.elbo, bound.log_likelihood - bound.kl.sum(dim=1))
    assert bound.kl.shape == (5, 3)


def test_without_extras_the_objective_is_the_negative_bound() -> None:
    vae = tiny()
    x = make_images(5, size=8).double()
    torch.manual_seed(3)
    objective = vae.loss(Batch(x, x), step=0).objective
    torch.manual_seed(3)
    torch.testing.assert_close(objective, -vae.elbo(Batch(x, x)).elbo.mean())


def test_beta_rises_over_the_warm_up_and_then_stays() -> None:
    vae = tiny(beta=2.0, warmup_steps=4)
    x = make_images(2, size=8).double()
    betas = [float(vae.loss(Batch(x, x), step).scalars["beta"]) for step in range(6)]
    assert betas == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_free_bits_leave_a_small_kl_alone() -> None:
    vae = tiny(free_bits=50.0)
    x = make_images(4, size=8).double()
    torch.manual_seed(0)
    loss = vae.loss(Batch(x, x), step=0)
    torch.testing.assert_close(loss.objective, 3 * 50.0 - loss.scalars["log_likelihood"])


def test_folding_the_normalisation_changes_nothing_but_the_config() -> None:
    vae = tiny()
    x = make_images(32, size=8).double()
    vae.train()
    for _ in range(5):  # so that the running statistics are not the trivial ones
        vae.loss(Batch(x, x), step=0)
    shipped, config = vae.eval().finish([Batch(x, x)])
    assert config.normalisation == "none"
    assert not any("norm" in name for name in shipped.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(shipped.posterior(x), vae.posterior(x))
        torch.testing.assert_close(shipped.reconstruct(x), vae.reconstruct(x))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 24}, "size must be a multiple of 16 for 4 stages, not 24"),
        ({"widths": ()}, "widths must be positive numbers of channels, one per stage"),
        ({"decoder_widths": (8,)}, "decoder_widths must be 4 positive numbers"),
        ({"likelihood": "poisson"}, "likelihood must be gaussian or logistic or bernoulli, not 'poisson'"),
        ({"normalisation": "layer"}, "normalisation must be batch or none, not 'layer'"),
        ({"latent_dim": 0}, "latent_dim must be at least 1, not 0"),
        ({"beta": -1.0}, "beta must be at least 0, not -1.0"),
        ({"scale": 0.0}, "scale must be above 0, not 0.0"),
        ({"search_dim": 129}, r"search_dim must be between 1 and the latent's size \(128\), not 129"),
        ({"network": "rnn"}, "network must be conv or mlp, not 'rnn'"),
        ({"network": "mlp", "hidden": (0,)}, "hidden must be positive numbers of units"),
        ({"activation": "gelu"}, "activation must be relu or tanh or silu, not 'gelu'"),
        ({"depth": -1}, "depth must be at least 0, not -1"),
        ({"likelihood": "bernoulli", "scale": 0.1}, "scale must be null for a bernoulli likelihood"),
        ({"whitening": 2.0}, "whitening must be between 0 and 1, not 2.0"),
        ({"turn": "qr"}, "turn must be pca or zca, not 'qr'"),
    ],
)
def test_a_bad_setting_is_named_with_its_value_and_what_would_do(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VaeConfig(**settings)
