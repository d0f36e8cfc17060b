"""A flow over vectors: a density of points or latents, with exact values and samples in one pass.

Each step is an activation normalisation (optional), an affine coupling, and a permutation; see `training.layers.flow`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from training.layers.checks import check_at_least, check_choice
from training.layers.flow import (
    ActNorm,
    Bijection,
    Chain,
    PermutationKind,
    SplitCoupling,
    build_permutation,
    dense_network,
    halves,
)
from training.layers.gaussian import log_standard_normal


@dataclass(frozen=True, kw_only=True)
class VectorFlowConfig:
    """Configuration of `VectorFlow`.

    Args:
        dim: D, the size of the vectors, at least 2.
        steps: number of couplings.
        hidden: units of the hidden layers of each coupling's network.
        permutation: what is between two couplings: `reverse`, `random`, or `1x1` (an invertible linear map).
        actnorm: normalise the values before each coupling, as Glow does.
    """

    dim: int = 2
    steps: int = 8
    hidden: tuple[int, ...] = (64, 64)
    permutation: PermutationKind = "reverse"
    actnorm: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))  # JSON and YAML give lists
        check_at_least("dim", self.dim, 2)
        check_at_least("steps", self.steps, 1)
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must be positive numbers of units, one per layer, not {self.hidden}")
        check_choice("permutation", self.permutation, get_args(PermutationKind))


class VectorFlow(Chain):
    """A flow from vectors x to z ~ N(0, I); `forward` and `inverse` take a number of steps to apply in part.

    Example:
        >>> flow = VectorFlow(VectorFlowConfig(dim=2, steps=4))
        >>> flow.log_prob(torch.zeros(3, 2)).shape, flow.sample(5).shape
        (torch.Size([3]), torch.Size([5, 2]))
    """

    def __init__(self, config: VectorFlowConfig) -> None:
        super().__init__(_step(config, number) for number in range(config.steps))
        self.config = config

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density in nats `(B,)` of vectors `(B, D)`."""
        z, log_det = self.forward(x)
        return log_standard_normal(z) + log_det

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None, *, temperature: float = 1.0) -> Tensor:
        """Vectors `(count, D)`; a temperature below 1 scales z, for likelier vectors."""
        like = next(self.parameters())
        noise = torch.randn(count, self.config.dim, generator=generator, dtype=like.dtype)
        return self.inverse(temperature * noise.to(like.device))


def _step(config: VectorFlowConfig, number: int) -> Chain:
    passed, changed = halves(config.dim)
    network = dense_network(passed, 2 * changed, config.hidden)
    layers: list[Bijection] = [ActNorm(config.dim)] if config.actnorm else []
    layers.append(SplitCoupling(network, config.dim))
    layers.append(build_permutation(config.permutation, config.dim, number))
    return Chain(layers)
