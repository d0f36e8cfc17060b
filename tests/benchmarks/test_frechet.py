"""The Frechet distance against an independent computation and closed forms."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm

SPEC = importlib.util.spec_from_file_location("frechet", Path(__file__).parents[2] / "benchmarks/frechet.py")
assert SPEC is not None and SPEC.loader is not None
MODULE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MODULE)
frechet_distance = MODULE.frechet_distance


@pytest.mark.parametrize(("count", "dim"), [(500, 3), (200, 24), (30, 40)])
def test_it_equals_the_matrix_square_root_of_scipy(count: int, dim: int) -> None:
    """With fewer features than dimensions too, where both covariances are singular."""
    rng = np.random.default_rng(dim)
    first = rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim))
    second = 0.7 * rng.normal(size=(count + 11, dim)) @ rng.normal(size=(dim, dim)) + 0.4
    one, two = np.cov(first.T), np.cov(second.T)
    cross = float(np.trace(np.real(sqrtm(one @ two))))
    expected = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(one) + np.trace(two) - 2 * cross
    assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-4)
    assert frechet_distance(second, first) == pytest.approx(float(expected), rel=1e-4)


def test_it_is_zero_for_equal_sets_and_known_for_gaussians_on_a_line() -> None:
    first = np.random.default_rng(0).normal(size=(400, 5))
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(first, first + 2.0) == pytest.approx(20.0)
    line = np.array([[-1.0], [1.0]] * 50)
    deviation = float(line.std(ddof=1))
    assert frechet_distance(line, 3.0 * line + 1.0) == pytest.approx(1.0 + (2.0 * deviation) ** 2)
