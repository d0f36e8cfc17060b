"""The double moon: two interleaved half circles with Gaussian noise, whose density is known.

Points are c(t) + sigma e with t uniform in [0, pi] and e ~ N(0, I), where c(t) is (cos t, sin t) on the first moon and
(1 - cos t, 1/2 - sin t) on the second, as in scikit-learn's `make_moons`. The density is the mean of the Gaussians
N(x; c(t), sigma^2 I) over both moons and over t, by the midpoint rule with steps far below sigma.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

NOISE = 0.1  # sigma
MIDPOINTS = 512  # of t, on each moon
AT_ONCE = 4096  # points whose density is computed together


class Points(NamedTuple):
    """Points `(N, 2)` and the moon of each, 0 or 1, `(N,)`."""

    x: Tensor
    moon: Tensor


def double_moon(count: int, generator: torch.Generator) -> Points:
    """Draw points, with an even chance for each moon."""
    moon = torch.randint(0, 2, (count,), generator=generator)
    angle = math.pi * torch.rand(count, generator=generator)
    return Points(_centre(moon, angle) + NOISE * torch.randn(count, 2, generator=generator), moon)


def log_density(x: Tensor) -> Tensor:
    """The true log-density in nats `(N,)` of points `(N, 2)`."""
    angle = math.pi * (torch.arange(MIDPOINTS, dtype=x.dtype) + 0.5) / MIDPOINTS
    centres = torch.cat([_centre(torch.full((MIDPOINTS,), moon), angle) for moon in (0, 1)])
    constant = -math.log(2.0 * math.pi * NOISE**2) - math.log(2 * MIDPOINTS)

    def nats(part: Tensor) -> Tensor:
        return (torch.cdist(part, centres).square() / (-2.0 * NOISE**2)).logsumexp(dim=1)

    return torch.cat([nats(part) for part in torch.split(x, AT_ONCE)]) + constant


def _centre(moon: Tensor, angle: Tensor) -> Tensor:
    first = torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)
    second = torch.stack([1.0 - torch.cos(angle), 0.5 - torch.sin(angle)], dim=1)
    return torch.where(moon[:, None] == 0, first, second)
