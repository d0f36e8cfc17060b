"""Real NVP: a normalising flow over images with affine couplings, whose density is exact and invertible.

Dinh, Sohl-Dickstein, Bengio: Density Estimation Using Real NVP, 2017, https://arxiv.org/abs/1605.08803. A level is
three couplings with checkerboard masks, a squeeze of 2 x 2 pixels into channels, and three couplings that divide the
channels into halves; then half of the channels are factored out. The last level has four checkerboard couplings
(section 3.6). `training.layers.flow` has the couplings, `training.layers.image_flow` the dequantisation, the likelihood
and the latent.

Differs from the paper: no batch normalisation in the flow or its networks; channels may also be permuted at random or
by a 1x1 convolution between the couplings, where the paper's alternating masks equal `reverse`.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.layers.checks import check_at_least
from training.layers.flow import (
    Bijection,
    Chain,
    CheckerboardCoupling,
    SplitCoupling,
    Squeeze,
    build_permutation,
    convolutional_network,
    halves,
)
from training.layers.image_flow import ImageFlow, ImageFlowConfig

AT_A_LEVEL, AT_THE_LAST = 3, 4  # couplings of each kind


@dataclass(frozen=True, kw_only=True)
class RealNvpConfig(ImageFlowConfig):
    """Configuration of `RealNvp`; see also `ImageFlowConfig`.

    Args:
        blocks: residual blocks of each coupling's network.
    """

    blocks: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("blocks", self.blocks, 0)


class RealNvp(ImageFlow):
    """A Real NVP; its latent is what the last level makes of the image.

    Example:
        >>> import torch
        >>> model = RealNvp(RealNvpConfig(size=8, levels=2, width=8))
        >>> model.sample(2).shape, model.log_likelihood(torch.zeros(2, 3, 8, 8)).nats.shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2]))
    """

    def __init__(self, config: RealNvpConfig) -> None:
        channels, size, levels = config.channels, config.size, []
        for _ in range(config.levels - 1):
            levels.append(Chain([*_checkerboards(config, channels, size, AT_A_LEVEL), *_splits(config, 4 * channels)]))
            channels, size = halves(4 * channels)[0], size // 2
        levels.append(Chain(_checkerboards(config, channels, size, AT_THE_LAST)))
        super().__init__(config, levels)


def _checkerboards(config: RealNvpConfig, channels: int, size: int, count: int) -> list[Bijection]:
    return [
        CheckerboardCoupling(
            convolutional_network(channels, 2 * channels, config.width, config.blocks), channels, size, number % 2
        )
        for number in range(count)
    ]


def _splits(config: RealNvpConfig, channels: int) -> list[Bijection]:
    """A squeeze, and couplings of the channels that it makes."""
    passed, changed = halves(channels)
    layers: list[Bijection] = [Squeeze()]
    for number in range(AT_A_LEVEL):
        if number:
            layers.append(build_permutation(config.permutation, channels, number))
        network = convolutional_network(passed, 2 * changed, config.width, config.blocks)
        layers.append(SplitCoupling(network, channels))
    return layers
