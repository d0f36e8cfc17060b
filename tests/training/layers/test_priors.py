"""Priors in float64: densities, KLs, the committed rate and flows against what they should equal; the MMD."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.layers.autoregressive_flow import AutoregressiveStep
from training.layers.gaussian import draw, log_density, mmd_to_standard_normal
from training.layers.priors import FirstOrder, FlowPrior, Prior, StandardNormal, committed_rate, process_of
from training.protocols import Posterior

STEPS, WIDTH = 4, 2
DIM = STEPS * WIDTH


def first_order(steps: int, width: int, alpha: float) -> FirstOrder:
    return FirstOrder(steps, width, committed_rate(alpha, steps, width))


def flow(dim: int = DIM, steps: int = 3) -> FlowPrior:
    """A flow far from the identity, which it is close to at first."""
    torch.manual_seed(0)
    prior = FlowPrior(dim, steps, (11, 9)).double()
    with torch.no_grad():
        for name, parameter in prior.named_parameters():
            if "out" in name:
                parameter.normal_(std=0.4)
    return prior


PRIORS: dict[str, Prior] = {
    "standard normal": StandardNormal(),
    "first order": first_order(STEPS, WIDTH, 0.8),
    "flow": flow(),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def posterior(count: int = 3, seed: int = 5) -> Posterior:
    mean, log_variance = normal(2, count, DIM, seed=seed)
    return Posterior(mean, log_variance - 1.0)


@pytest.mark.parametrize("name", PRIORS)
@torch.no_grad()
def test_the_kl_is_the_mean_of_log_ratios_over_samples(name: str) -> None:
    q, prior = posterior(), PRIORS[name]
    z = draw(q, 100_000, torch.Generator().manual_seed(1))
    ratios = log_density(z, q) - prior.log_prob(z)
    error = ratios.std(dim=0) / len(z) ** 0.5
    found = prior.kl(q, z[:50_000])
    assert found.shape == (3, DIM)
    assert bool(((found.sum(dim=1) - ratios.mean(dim=0)).abs() < 6.0 * error).all())


@pytest.mark.parametrize("name", PRIORS)
@torch.no_grad()
def test_the_density_is_that_of_noise_without_the_volume_that_the_prior_takes(name: str) -> None:
    """log p(z) + log |det dz / de| = log N(e; 0, I) for the latents z of noise e, by the Jacobian of z."""
    prior, noise = PRIORS[name], normal(2, DIM, seed=2)
    z = prior.from_noise(noise)
    back = 1e-6
    columns = [
        (prior.from_noise(noise + back * each) - prior.from_noise(noise - back * each)) / (2.0 * back)
        for each in torch.eye(DIM, dtype=torch.float64)
    ]
    volume = torch.linalg.slogdet(torch.stack(columns, dim=2)).logabsdet
    expected = -0.5 * (noise.square() + math.log(2.0 * math.pi)).sum(dim=1) - volume
    torch.testing.assert_close(prior.log_prob(z), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(prior.log_prob(z[None].expand(5, -1, -1))[3], prior.log_prob(z))


@torch.no_grad()
def test_a_process_has_the_density_of_its_covariance() -> None:
    prior, z = PRIORS["first order"], normal(6, DIM)
    t = torch.arange(STEPS, dtype=torch.float64)
    covariance = 0.8 ** (t[:, None] - t[None, :]).abs()
    law = torch.distributions.MultivariateNormal(torch.zeros(STEPS, dtype=torch.float64), covariance)
    sequences = z.reshape(6, STEPS, WIDTH)
    expected = sum(law.log_prob(sequences[:, :, place]) for place in range(WIDTH))
    torch.testing.assert_close(prior.log_prob(z), expected)
    drawn = prior.from_noise(normal(200_000, DIM, seed=3)).reshape(-1, STEPS, WIDTH)
    for place in range(WIDTH):
        torch.testing.assert_close(torch.cov(drawn[:, :, place].T), covariance, atol=0.02, rtol=0)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("steps", [2, 3, 8])
def test_the_committed_rate_is_the_smallest_kl_found_by_descent(alpha: float, steps: int) -> None:
    width = 2
    prior = first_order(steps, width, alpha)
    mean = normal(1, steps * width, seed=1).mul(0.1).requires_grad_()
    log_variance = normal(1, steps * width, seed=2).mul(0.1).requires_grad_()
    optimiser = torch.optim.LBFGS([mean, log_variance], max_iter=300, line_search_fn="strong_wolfe")

    def rate() -> Tensor:
        optimiser.zero_grad()
        kl = prior.kl(Posterior(mean, log_variance), mean[None]).sum()
        kl.backward()
        return kl.detach()

    optimiser.step(rate)
    assert float(rate()) == pytest.approx(committed_rate(alpha, steps, width), abs=1e-5)
    inner = (1.0 - alpha**2) / (1.0 + alpha**2)
    expected = torch.full((steps, width), inner, dtype=torch.float64)
    expected[0] = expected[-1] = 1.0 - alpha**2
    torch.testing.assert_close(log_variance.exp().detach(), expected.reshape(1, -1), atol=1e-3, rtol=1e-2)


numbers = st.lists(st.floats(-3.0, 3.0), min_size=2 * 12, max_size=2 * 12)


@settings(max_examples=300, deadline=None)
@given(numbers, st.floats(0.0, 60.0), st.sampled_from([(2, 6), (3, 4), (6, 2), (12, 1)]))
def test_no_posterior_has_a_kl_below_the_committed_rate(
    values: list[float], rate: float, shape: tuple[int, int]
) -> None:
    mean, log_variance = torch.tensor(values, dtype=torch.float64).reshape(2, 1, 12)
    prior = FirstOrder(*shape, min(rate, committed_rate(0.999, *shape)))
    optimum = torch.full(shape, math.log(prior.noise_variance / (1.0 + prior.alpha**2)), dtype=torch.float64)
    optimum[0] = optimum[-1] = math.log(prior.noise_variance)
    for share in (1.0, 1e-2, 1e-4):  # of the way from the posterior with the smallest KL
        near = Posterior(share * mean, optimum.reshape(1, -1) + share * log_variance)
        found = float(prior.kl(near, near.mean[None]).sum())
        assert found >= committed_rate(prior.alpha, *shape) - 1e-9 * max(1.0, found)


@pytest.mark.parametrize("rate", [0.0, 1e-3, 1.0, 8.0, 25.0])
def test_a_rate_gives_the_process_that_commits_to_it(rate: float) -> None:
    noise_variance, alpha = process_of(rate, 4, 8)
    assert committed_rate(alpha, 4, 8) == pytest.approx(rate, abs=1e-9)
    assert noise_variance == pytest.approx(1.0 - alpha**2, abs=1e-12)


def test_a_rate_out_of_reach_is_refused_with_the_largest_one() -> None:
    with pytest.raises(ValueError, match=r"committed_rate must be at most 45\.5 nats for 4 x 8 latents, not 50"):
        process_of(50.0, 4, 8)


@pytest.mark.parametrize("number", [0, 1])
def test_a_step_of_a_flow_undoes_itself_and_has_the_log_determinant_of_its_jacobian(number: int) -> None:
    torch.manual_seed(1)
    step = AutoregressiveStep(5, (8, 8), number).double()
    torch.nn.init.normal_(step.out.weight, std=0.5)
    x = normal(4, 5)
    z, log_det = step(x)
    torch.testing.assert_close(step.inverse(z), x, atol=1e-10, rtol=0)
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(lambda one: step(one[None]).z[0], each) for each in x]
    ).detach()
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian).logabsdet, atol=1e-10, rtol=0)
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    forbidden, used = (later, later.T) if number == 0 else (later.T, later)
    assert bool((jacobian[:, forbidden] == 0).all()), "a value depends on one after it"
    assert bool((jacobian[:, used] != 0).any(dim=0).all()), "a value does not depend on one before it"


def test_the_density_of_a_flow_prior_is_that_of_its_jacobian_and_its_latents_come_back() -> None:
    prior, z = flow(), normal(3, DIM, seed=4)

    def normalised(one: Tensor) -> Tensor:
        for step in prior.steps:
            one = step(one)[0]
        return one

    u = normalised(z)
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda x: normalised(x[None])[0], each) for each in z])
    expected = -0.5 * (u.square() + math.log(2.0 * math.pi)).sum(dim=1) + torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(prior.log_prob(z), expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(prior.from_noise(u), z, atol=1e-10, rtol=0)


@torch.no_grad()
def test_the_density_of_a_flow_prior_integrates_to_one() -> None:
    prior, axis = flow(dim=2), torch.linspace(-12.0, 12.0, 601, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
    assert float(prior.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1.0, abs=1e-2)


def test_the_gradient_reaches_every_parameter_of_a_flow_prior() -> None:
    prior = FlowPrior(5, 2, (7,))
    z = draw(Posterior(torch.randn(6, 5), torch.zeros(6, 5)), 2)
    prior.kl(Posterior(torch.zeros(6, 5), torch.zeros(6, 5)), z).sum().backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


def kernel(a: Tensor, b: Tensor, width: float) -> float:
    return math.exp(-float((a - b).square().sum()) / (2.0 * width**2))


@pytest.mark.parametrize(("dim", "width"), [(1, 0.7), (3, 3 / math.sqrt(2.0)), (6, math.sqrt(3.0))])
def test_the_mmd_equals_a_double_loop_and_integrals_over_the_prior(dim: int, width: float) -> None:
    """E k(z, y) and E k(y, y') over y, y' ~ N(0, I) are products of one-dimensional integrals, summed on a grid."""
    z = normal(7, dim) + 0.5
    own = [kernel(z[i], z[j], width) for i in range(7) for j in range(7) if i != j]
    grid = torch.linspace(-9.0, 9.0, 2001, dtype=torch.float64)
    density = torch.exp(-0.5 * grid.square()) / math.sqrt(2.0 * math.pi) * (grid[1] - grid[0])

    def over_prior(value: Tensor) -> Tensor:
        return (torch.exp(-(value - grid).square() / (2.0 * width**2)) * density).sum()

    crossed = [math.prod(float(over_prior(value)) for value in row) for row in z]
    both = float(sum(over_prior(point) * weight for point, weight in zip(grid, density, strict=True))) ** dim
    expected = sum(own) / len(own) - 2.0 * sum(crossed) / len(crossed) + both
    assert float(mmd_to_standard_normal(z, width)) == pytest.approx(expected, abs=1e-9)


def test_the_mmd_of_few_draws_of_the_prior_is_zero_on_average_and_that_of_others_is_what_many_draws_have() -> None:
    def estimates(scale: float, rows: int, count: int) -> Tensor:
        return torch.stack([mmd_to_standard_normal(scale * normal(rows, 3, seed=seed), 1.5) for seed in range(count)])

    few = estimates(1.0, 3, 4000)
    assert abs(float(few.mean())) < 4.0 * float(few.std()) / len(few) ** 0.5
    assert float(few.min()) < 0.0 < float(few.max())
    narrow, many = estimates(0.5, 3, 4000), estimates(0.5, 2000, 4)
    assert float(narrow.mean()) == pytest.approx(float(many.mean()), abs=4.0 * float(narrow.std()) / 4000**0.5)
    assert float(many.mean()) > 0.02
    assert float(mmd_to_standard_normal(normal(1, 3), 1.5)) == 0.0
