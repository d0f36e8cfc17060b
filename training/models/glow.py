"""Glow: a normalising flow over images with activation normalisation and invertible 1x1 convolutions.

Kingma, Dhariwal: Glow: Generative Flow with Invertible 1x1 Convolutions, 2018, https://arxiv.org/abs/1807.03039. A
level squeezes 2 x 2 pixels into channels, and then takes `steps` steps of activation normalisation, a 1x1 convolution
and an affine coupling (figure 2, table 1). Half of the channels are factored out after each level but the last; their
prior is a Gaussian whose mean and scale are functions of the other half, here written as one more coupling.
`training.layers.flow` has the layers, `training.layers.image_flow` the dequantisation, the likelihood and the latent.

Differs from the paper: the networks of the couplings have one residual block between their 3x3 convolutions instead of
a 1x1 convolution; the scale is g tanh(.); values are unbounded by a logit, as in Real NVP.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.layers.checks import check_at_least
from training.layers.flow import (
    ActNorm,
    Bijection,
    Chain,
    PermutationKind,
    SplitCoupling,
    Squeeze,
    build_permutation,
    convolutional_network,
    halves,
)
from training.layers.image_flow import ImageFlow, ImageFlowConfig

BLOCKS = 1


@dataclass(frozen=True, kw_only=True)
class GlowConfig(ImageFlowConfig):
    """Configuration of `Glow`; see also `ImageFlowConfig`.

    Args:
        steps: K, steps of each level.
    """

    permutation: PermutationKind = "1x1"
    steps: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("steps", self.steps, 1)


class Glow(ImageFlow):
    """A Glow; its latent is what the last level makes of the image.

    Example:
        >>> import torch
        >>> model = Glow(GlowConfig(size=8, levels=2, steps=2, width=8))
        >>> model.sample(2).shape, model.log_likelihood(torch.zeros(2, 3, 8, 8)).nats.shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2]))
    """

    def __init__(self, config: GlowConfig) -> None:
        channels, levels = config.channels, []
        for number in range(config.levels):
            channels *= 4
            layers: list[Bijection] = [Squeeze()]
            for step in range(config.steps):
                layers += [
                    ActNorm(channels),
                    build_permutation(config.permutation, channels, step),
                    _coupling(config, channels),
                ]
            if number < config.levels - 1:
                layers.append(_coupling(config, channels))  # the prior of the second half given the first
            levels.append(Chain(layers))
            channels = halves(channels)[0]
        super().__init__(config, levels)


def _coupling(config: GlowConfig, channels: int) -> SplitCoupling:
    passed, changed = halves(channels)
    return SplitCoupling(convolutional_network(passed, 2 * changed, config.width, BLOCKS), channels)
