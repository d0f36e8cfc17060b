"""The distribution of a drawing's rows: its density by hand, its integral, and what is drawn from it."""

from __future__ import annotations

import math

import pytest
import torch

from training.layers.strokes import RowDistribution, row_distribution


def distribution(rows: int = 1, components: int = 3) -> RowDistribution:
    """An arbitrary one, float64."""
    outputs = torch.randn(rows, 6 * components + 3, generator=torch.Generator().manual_seed(1))
    found = row_distribution(outputs, components)
    return RowDistribution(*(each.double() for each in found))


def test_the_density_of_one_normal_by_hand() -> None:
    """Equation 4 with sigma = (2, 3), rho = 0.5, at (dx - mu_x, dy - mu_y) = (1, -2)."""
    found = RowDistribution(
        log_weights=torch.zeros(1, 1, dtype=torch.float64),
        mean=torch.tensor([[[1.0, 1.0]]], dtype=torch.float64),
        log_deviation=torch.tensor([[[math.log(2.0), math.log(3.0)]]], dtype=torch.float64),
        correlation=torch.tensor([[0.5]], dtype=torch.float64),
        log_pen=torch.zeros(1, 3, dtype=torch.float64),
    )
    z = (1 / 2) ** 2 + (-2 / 3) ** 2 - 2 * 0.5 * (1 / 2) * (-2 / 3)
    density = math.exp(-z / (2 * 0.75)) / (2 * math.pi * 2 * 3 * math.sqrt(0.75))
    assert float(found.log_density(torch.tensor([[2.0, -1.0]]).double())) == pytest.approx(math.log(density))


def test_the_mixture_integrates_to_one() -> None:
    found = distribution()
    axis = torch.linspace(-30.0, 30.0, 1201, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    each = RowDistribution(*(value.expand(len(grid), *value.shape[1:]) for value in found))
    assert float(each.log_density(grid).exp().sum()) * 0.05**2 == pytest.approx(1.0, abs=1e-3)
    assert float(found.log_pen.exp().sum()) == pytest.approx(1.0)


def test_draws_follow_the_mixture_and_the_temperature() -> None:
    """Moments of many draws against those of one component, whose variances are multiplied by the temperature."""
    one = distribution(components=1)
    found = RowDistribution(*(value.expand(40_000, *value.shape[1:]) for value in one))
    for temperature in (1.0, 0.25):
        rows = found.draw(temperature, torch.Generator().manual_seed(0))
        points = rows[rows[:, 4] == 0, :2]
        deviation = one.log_deviation[0, 0].exp() * math.sqrt(temperature)
        torch.testing.assert_close(points.mean(0), one.mean[0, 0], atol=0.05, rtol=0)
        torch.testing.assert_close(points.std(0), deviation, atol=0, rtol=0.03)
        assert float(torch.corrcoef(points.T)[0, 1]) == pytest.approx(float(one.correlation), abs=0.03)
        shares = torch.softmax(one.log_pen[0] / temperature, 0)
        torch.testing.assert_close(rows[:, 2:].mean(0), shares, atol=0.01, rtol=0)
    assert bool((rows[rows[:, 4] == 1, :2] == 0).all())


def test_a_temperature_of_zero_takes_the_heaviest_component_and_the_likeliest_state() -> None:
    found = distribution(rows=50)
    rows = found.draw(0.0)
    for number in range(50):
        heaviest = int(found.log_weights[number].argmax())
        state = int(found.log_pen[number].argmax())
        assert int(rows[number, 2:].argmax()) == state
        expected = found.mean[number, heaviest] if state < 2 else torch.zeros(2).double()
        torch.testing.assert_close(rows[number, :2], expected)
    # the limit: nearly all draws at a tiny temperature are those
    near = found.draw(1e-6, torch.Generator().manual_seed(0))
    assert float(((near - rows).abs().amax(1) < 0.05).double().mean()) > 0.95
