"""Distributions of pixels: they sum to one, agree with SciPy, and draw as often as they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, logistic
from torch import Tensor

from training.layers.distributions import (
    Bernoulli,
    Categorical,
    LogisticMixture,
    PixelDistribution,
    Pixels,
    build_distribution,
)

LEVELS = torch.arange(256, dtype=torch.float64) / 255.0


def parameters(count: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(1, count, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(distribution: PixelDistribution, values: Tensor, numbers: Tensor) -> Tensor:
    """Of pixels `(N, C)` under one set of parameters."""
    nats = distribution.log_prob(values[:, :, None, None], numbers.expand(len(values), -1, -1, -1))
    return nats[:, 0, 0].exp()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(0.1, 8.0))
def test_a_logistic_mixture_sums_to_one_over_all_levels(seed: int, mixtures: int, scale: float) -> None:
    one = LogisticMixture(1, mixtures)
    assert float(probabilities(one, LEVELS[:, None], parameters(one.parameters, seed, scale)).sum()) == pytest.approx(
        1.0
    )


def test_a_logistic_mixture_of_two_channels_sums_to_one_over_all_pairs() -> None:
    two = LogisticMixture(2, 3)
    pairs = torch.cartesian_prod(LEVELS, LEVELS)
    assert float(probabilities(two, pairs, parameters(two.parameters)).sum()) == pytest.approx(1.0)


def test_a_logistic_mixture_agrees_with_scipy() -> None:
    """Equations 1 to 3 of the paper, in units where a channel spans [-1, 1], with SciPy's logistic distribution."""
    mixture = LogisticMixture(3, 2)
    numbers = parameters(mixture.parameters, seed=4, scale=1.0)
    logits, means, log_scales, coefficients = (part[0, ..., 0, 0].numpy() for part in mixture._parts(numbers))
    weights = np.exp(logits) / np.exp(logits).sum()
    half = 1.0 / 255.0
    for levels in ([0, 255, 128], [17, 0, 255], [200, 199, 3]):
        x = 2.0 * np.array(levels) / 255.0 - 1.0
        c = np.tanh(numbers[0, 2 + 12 :, 0, 0].numpy().reshape(3, 2))
        np.testing.assert_allclose(c, coefficients)
        moved = [means[0], means[1] + c[0] * x[0], means[2] + c[1] * x[0] + c[2] * x[1]]
        product = weights.copy()
        for channel in range(3):
            scale = np.exp(log_scales[channel])
            upper = logistic.cdf(x[channel] + half, moved[channel], scale) if levels[channel] < 255 else 1.0
            lower = logistic.cdf(x[channel] - half, moved[channel], scale) if levels[channel] > 0 else 0.0
            product *= upper - lower
        values = torch.tensor(levels, dtype=torch.float64)[None] / 255.0
        assert float(probabilities(mixture, values, numbers)[0]) == pytest.approx(product.sum(), rel=1e-6)


def test_a_softmax_over_levels_is_that_of_each_channel() -> None:
    colours = Pixels(3)
    numbers = parameters(colours.parameters)
    logits = numbers[0, :, 0, 0].reshape(3, 256)
    expected = torch.log_softmax(logits, dim=1)[torch.arange(3), torch.tensor([0, 255, 77])].sum().exp()
    pixel = torch.tensor([[0.0, 1.0, 77 / 255]], dtype=torch.float64)
    torch.testing.assert_close(probabilities(colours, pixel, numbers)[0], expected)


DRAWS = 20_000
DRAWN: dict[str, tuple[Any, Tensor]] = {
    "bernoulli": (Bernoulli(2), torch.cartesian_prod(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])).double()),
    "categorical": (Categorical(1, 6), torch.arange(6)[:, None]),
    "levels": (Pixels(1), LEVELS[:, None]),
    "mixture": (LogisticMixture(1, 3), LEVELS[:, None]),
}


def draw(distribution: Any, numbers: Tensor, blank: Tensor, temperature: float = 1.0, count: int = DRAWS) -> Tensor:
    generator, pixel = torch.Generator().manual_seed(3), blank.expand(count, -1).clone()
    for step in range(distribution.steps):
        pixel = distribution.draw(numbers[:, :, 0, 0].expand(count, -1), pixel, step, generator, temperature)
    return pixel


@pytest.mark.parametrize("kind", DRAWN)
def test_values_are_drawn_as_often_as_they_are_likely(kind: str) -> None:
    distribution, values = DRAWN[kind]
    numbers = parameters(distribution.parameters, seed=2, scale=1.0)
    expected = probabilities(distribution, values, numbers).numpy()
    drawn = draw(distribution, numbers, torch.zeros_like(values[:1]))
    counts = (drawn[:, None, :] - values[None] == 0).all(dim=2).sum(dim=0).numpy()
    assert counts.sum() == DRAWS, "a value that is no level"
    common = expected * DRAWS > 5
    observed = np.append(counts[common], counts[~common].sum())
    awaited = np.append(expected[common], expected[~common].sum()) * DRAWS
    keep = awaited > 0
    assert chisquare(observed[keep], awaited[keep] * observed[keep].sum() / awaited[keep].sum()).pvalue > 1e-4


def test_later_channels_of_a_mixture_follow_the_values_drawn_for_the_earlier_ones() -> None:
    """The mean of green is red's value times tanh of a large coefficient, which is one."""
    mixture = LogisticMixture(3, 1)
    numbers = torch.zeros(1, mixture.parameters, 1, 1, dtype=torch.float64)
    numbers[:, 4] = -1.0  # red varies
    numbers[:, 5:7] = -7.0  # green and blue hardly do
    numbers[:, 7], numbers[:, 8], numbers[:, 9] = 20.0, -20.0, 0.0
    drawn = draw(mixture, numbers, torch.zeros(1, 3, dtype=torch.float64), count=500)
    assert len(drawn[:, 0].unique()) > 50
    assert float((drawn[:, 1] - drawn[:, 0]).abs().max()) <= 2 / 255
    assert float((drawn[:, 2] - (1.0 - drawn[:, 0])).abs().max()) <= 2 / 255


@pytest.mark.parametrize("kind", DRAWN)
def test_a_low_temperature_draws_likelier_values(kind: str) -> None:
    distribution, values = DRAWN[kind]
    numbers = parameters(distribution.parameters, seed=2, scale=1.0)
    if kind == "mixture":  # wide logistics put much of their mass on the ends, which a low temperature leaves
        numbers[:, 6:] = -4.0
    blank = torch.zeros_like(values[:1])
    warm, cool = (
        distribution.log_prob(
            draw(distribution, numbers, blank, temperature)[:, :, None, None], numbers.expand(DRAWS, -1, -1, -1)
        ).mean()
        for temperature in (1.0, 0.3)
    )
    assert float(cool) > float(warm)
    assert len(draw(distribution, numbers, blank, 0.0).unique(dim=0)) == 1


def test_a_likelihood_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="likelihood must be one of bernoulli, categorical, logistic-mixture, not 'g'"):
        build_distribution("g", 3, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mixtures must be at least 1, not 0"):
        LogisticMixture(3, 0)
