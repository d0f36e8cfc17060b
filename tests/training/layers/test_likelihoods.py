"""Likelihoods of 8-bit values against sums, quadrature and torch's own distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.layers.likelihoods import (
    BIN,
    LikelihoodKind,
    PixelLikelihood,
    bernoulli_log_prob,
    gaussian_log_prob,
    logistic_log_prob,
)

VALUES = torch.arange(256, dtype=torch.float64) / 255.0
MEANS = [-0.3, 0.0, 0.001, 0.37, 0.5, 1.0, 1.4]
SCALES = [0.0005, 0.004, 0.05, 0.3, 2.0]


def at(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("scale", SCALES)
def test_the_discretised_logistic_sums_to_one_over_the_256_values(mean: float, scale: float) -> None:
    total = torch.logsumexp(logistic_log_prob(VALUES, at(mean), at(scale).log()), dim=0)
    assert float(total) == pytest.approx(0.0, abs=1e-9)


def test_the_discretised_logistic_is_the_difference_of_distribution_functions() -> None:
    mean, scale = at(0.42), at(0.06)
    upper = torch.sigmoid((VALUES + 0.5 * BIN - mean) / scale)
    lower = torch.sigmoid((VALUES - 0.5 * BIN - mean) / scale)
    upper[-1], lower[0] = 1.0, 0.0
    torch.testing.assert_close(logistic_log_prob(VALUES, mean, scale.log()), (upper - lower).log())


@pytest.mark.parametrize("scale", [1e-3, 0.1, 10.0])
def test_far_values_keep_finite_gradients_in_single_precision(scale: float) -> None:
    mean = torch.tensor([-3.0, 0.0, 0.5, 1.0, 4.0], requires_grad=True)
    log_scale = torch.tensor(math.log(scale), requires_grad=True)
    nats = logistic_log_prob(VALUES.float()[:, None], mean, log_scale)
    nats.sum().backward()
    assert bool(torch.isfinite(nats).all())
    assert mean.grad is not None and bool(torch.isfinite(mean.grad).all())
    assert log_scale.grad is not None and bool(torch.isfinite(log_scale.grad))


def test_single_precision_agrees_with_double() -> None:
    double = logistic_log_prob(VALUES[:, None], torch.tensor(MEANS).double(), at(0.05).log())
    single = logistic_log_prob(VALUES.float()[:, None], torch.tensor(MEANS), torch.tensor(0.05).log())
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("scale", [0.004, 0.05, 0.3])
def test_the_gaussian_bound_stays_just_below_the_mass_of_the_bin(mean: float, scale: float) -> None:
    normal = torch.distributions.Normal(at(mean), at(scale))
    near = VALUES[(VALUES - mean).abs() < 4 * scale]
    mass = normal.cdf(near + 0.5 * BIN) - normal.cdf(near - 0.5 * BIN)
    bound = gaussian_log_prob(near, at(mean), at(scale).log())
    assert bool((bound <= mass.log() + 1e-9).all())
    torch.testing.assert_close(bound, mass.log(), atol=0.7 * (BIN / scale) ** 2 + 1e-4, rtol=0)


def test_the_gaussian_bound_is_the_mean_log_density_over_the_bin() -> None:
    normal = torch.distributions.Normal(at(0.4), at(0.01))
    noise = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000 - 0.5
    expected = normal.log_prob(VALUES[100] + noise * BIN).mean() + math.log(BIN)
    torch.testing.assert_close(gaussian_log_prob(VALUES[100], at(0.4), at(0.01).log()), expected)


@pytest.mark.parametrize("mean", MEANS)
def test_the_gaussian_never_gives_more_than_one_in_all(mean: float) -> None:
    for scale in SCALES:
        assert float(torch.logsumexp(gaussian_log_prob(VALUES, at(mean), at(scale).log()), dim=0)) <= 0.0


def test_bernoulli_nats_are_those_of_torch_and_of_the_formula() -> None:
    logit = torch.linspace(-8.0, 8.0, 33, dtype=torch.float64)
    for value in (0.0, 1.0):
        expected = torch.distributions.Bernoulli(logits=logit).log_prob(at(value))
        torch.testing.assert_close(bernoulli_log_prob(at(value).expand_as(logit), logit), expected)
    p = torch.sigmoid(logit)
    formula = 0.3 * p.log() + 0.7 * (1.0 - p).log()
    torch.testing.assert_close(bernoulli_log_prob(at(0.3).expand_as(logit), logit), formula)


def test_binarised_images_have_probabilities_that_sum_to_one() -> None:
    likelihood = PixelLikelihood("bernoulli", 1)
    images = torch.tensor([[(i >> bit) & 1 for bit in range(4)] for i in range(16)]).double().reshape(16, 1, 2, 2)
    logit = torch.randn(1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(likelihood(images, logit.expand(16, 1, 2, 2)).exp().sum()) == pytest.approx(1.0, abs=1e-12)
    assert torch.equal(likelihood.mean(logit), torch.sigmoid(logit))


def test_saturated_logits_keep_finite_nats_and_gradients() -> None:
    logit = torch.tensor([-200.0, 200.0], requires_grad=True)
    nats = bernoulli_log_prob(torch.tensor([1.0, 0.0]), logit)
    nats.sum().backward()
    assert nats.tolist() == [-200.0, -200.0]
    assert logit.grad is not None and bool(torch.isfinite(logit.grad).all())


@pytest.mark.parametrize("kind", ["gaussian", "logistic", "bernoulli"])
def test_each_pixel_counts_by_its_weight(kind: LikelihoodKind) -> None:
    likelihood = PixelLikelihood(kind, 3)
    x, parameter = torch.rand(2, 3, 4, 5), torch.rand(7, 2, 3, 4, 5)
    weight = torch.rand(2, 1, 4, 5)
    alone = torch.stack(
        [
            likelihood(x[..., i : i + 1, j : j + 1], parameter[..., i : i + 1, j : j + 1])
            for i in range(4)
            for j in range(5)
        ]
    )
    expected = (alone * weight.reshape(2, 20).T[:, None]).sum(dim=0)
    torch.testing.assert_close(likelihood(x, parameter, weight), expected)
    torch.testing.assert_close(likelihood(x, parameter, torch.ones(2, 1, 4, 5)), likelihood(x, parameter))


def test_nats_are_summed_over_channels_and_pixels() -> None:
    likelihood = PixelLikelihood("gaussian", 3, scale=0.2)
    x, mean = torch.rand(2, 3, 4, 5), torch.rand(7, 2, 3, 4, 5)
    nats = likelihood(x, mean)
    assert nats.shape == (7, 2)
    torch.testing.assert_close(nats, gaussian_log_prob(x, mean, torch.tensor(0.2).log()).sum(dim=(2, 3, 4)))


def test_a_learnt_scale_finds_the_root_mean_square_error_of_each_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.03, 0.1, 0.3])[:, None, None]
    error = spread * torch.randn(1, 3, 64, 64, generator=generator)
    likelihood = PixelLikelihood("gaussian", 3)
    optimiser = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        (-likelihood(error, torch.zeros_like(error))).sum().backward()
        optimiser.step()
    found = likelihood.log_scale.detach().exp().flatten()
    torch.testing.assert_close(found, error.square().mean(dim=(0, 2, 3)).sqrt(), rtol=0.02, atol=0)


def test_a_fixed_scale_is_no_parameter_but_is_saved() -> None:
    likelihood = PixelLikelihood("logistic", 1, scale=0.1)
    assert not list(likelihood.parameters())
    assert "log_scale" in likelihood.state_dict()


@pytest.mark.parametrize(("kind", "scale"), [("poisson", None), ("gaussian", 0.0), ("gaussian", -1.0)])
def test_other_kinds_and_scales_are_refused(kind: str, scale: float | None) -> None:
    with pytest.raises(ValueError, match="must be"):
        PixelLikelihood(kind, 3, scale)
