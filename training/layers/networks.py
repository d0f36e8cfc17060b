"""Encoder and decoder bodies shared by the families: convolutional stages, or fully connected layers.

A convolutional stage is one strided convolution, which halves (or doubles) the side, followed by residual blocks
(He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015, https://arxiv.org/abs/1512.03385, equation 1).

Differs from the paper: one normalised convolution per residual block, SiLU, no activation after the sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from training.layers.blocks import Block, Residual
from training.layers.checks import check_at_least, check_choice, check_image
from training.layers.likelihoods import LikelihoodKind
from training.layers.resample import resize

Normalisation = Literal["batch", "none"]
Network = Literal["conv", "mlp"]
Activation = Literal["relu", "tanh", "silu"]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Settings that the configs of all learnt families share.

    Args:
        size: side of the images in pixels; a multiple of 2^len(widths) for `conv`.
        channels: 1 or 3.
        network: `conv` for convolutional stages, `mlp` for fully connected layers.
        widths: channels of the encoder's stages, each of which halves the side (`conv`).
        decoder_widths: channels of the decoder's stages from coarse to fine, as many as `widths` (`conv`).
        depth: residual blocks in each encoder stage except the first, whose maps are too large (`conv`).
        decoder_depth: residual blocks in each decoder stage except the last (`conv`).
        hidden: units of the encoder's layers; the decoder reverses them (`mlp`).
        activation: activation of those layers (`mlp`).
        normalisation: `batch` or `none`; the model that ships after training always has `none` (`conv`).
        likelihood: see `training.layers.likelihoods`.
        scale: scale of the likelihood, where a channel spans [0, 1]; None learns one per channel.
    """

    LIKELIHOODS: ClassVar[tuple[str, ...]] = get_args(LikelihoodKind)

    size: int = 64
    channels: int = 3
    network: Network = "conv"
    widths: tuple[int, ...] = (32, 64, 128, 256)
    decoder_widths: tuple[int, ...] = (256, 128, 64, 32)
    depth: int = 0
    decoder_depth: int = 0
    hidden: tuple[int, ...] = (200, 200)
    activation: Activation = "tanh"
    normalisation: Normalisation = "batch"
    likelihood: LikelihoodKind = "gaussian"
    scale: float | None = None

    def __post_init__(self) -> None:
        for name in ("widths", "decoder_widths", "hidden"):  # JSON and YAML give lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_image(self.size, self.channels)
        check_choice("network", self.network, get_args(Network))
        check_choice("activation", self.activation, get_args(Activation))
        check_choice("normalisation", self.normalisation, get_args(Normalisation))
        check_choice("likelihood", self.likelihood, self.LIKELIHOODS)
        check_at_least("depth", self.depth, 0)
        check_at_least("decoder_depth", self.decoder_depth, 0)
        if self.network == "conv":
            self._check_stages()
        if self.hidden and min(self.hidden) < 1:
            raise ValueError(f"hidden must be positive numbers of units, one per layer, not {self.hidden}")
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f"scale must be above 0, not {self.scale}")
        if self.scale is not None and self.likelihood == "bernoulli":
            raise ValueError("scale must be null for a bernoulli likelihood")

    def _check_stages(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths must be positive numbers of channels, one per stage, not {self.widths}")
        if len(self.decoder_widths) != len(self.widths) or min(self.decoder_widths) < 1:
            raise ValueError(f"decoder_widths must be {len(self.widths)} positive numbers, not {self.decoder_widths}")
        if self.size % 2 ** len(self.widths):
            stages = len(self.widths)
            raise ValueError(f"size must be a multiple of {2**stages} for {stages} stages, not {self.size}")

    @property
    def size_multiple(self) -> int | None:
        """The encoder accepts images whose side is a multiple of this; None if it only accepts `size`."""
        return None

    @property
    def side(self) -> int:
        """Side of the last feature map of `conv`."""
        return int(self.size // 2 ** len(self.widths))

    @property
    def decoded_size(self) -> int:
        """Side of the decoded images."""
        return self.size


def encoder_stages(
    channels: int, widths: tuple[int, ...], depth: int, normalise: bool, convolution: type[nn.Conv2d] = nn.Conv2d
) -> nn.Sequential:
    """Stages of 3 x 3 convolutions with stride 2, cheap on a CPU; each stage halves the side."""
    stages = nn.Sequential()
    for number, (before, after) in enumerate(pairwise((channels, *widths))):
        stages.append(Block(convolution(before, after, 3, stride=2, padding=1, bias=not normalise), normalise))
        for _ in range(depth if number else 0):
            stages.append(Residual(after, normalise, convolution))
    return stages


def decoder_stages(
    channels: int,
    widths: tuple[int, ...],
    depth: int,
    normalise: bool,
    convolution: type[nn.Conv2d] = nn.Conv2d,
    transposed: type[nn.ConvTranspose2d] = nn.ConvTranspose2d,
) -> nn.Sequential:
    """Stages from `channels` to `widths`, each of which doubles the side."""
    stages = nn.Sequential()
    for before, after in pairwise((channels, *widths)):
        for _ in range(depth):
            stages.append(Residual(before, normalise, convolution))
        stages.append(Block(transposed(before, after, 4, stride=2, padding=1, bias=not normalise), normalise))
    return stages


def layers(units: tuple[int, ...], activation: Activation) -> nn.Sequential:
    """Fully connected layers with `units[0]` inputs, each followed by its activation."""
    stages = nn.Sequential()
    for before, after in pairwise(units):
        stages.append(nn.Linear(before, after))
        stages.append(ACTIVATIONS[activation]())
    return stages


class ImageEncoder(nn.Module):
    """Images to features; families add their heads.

    Args:
        condition: size of the condition, which is given as extra planes (`conv`) or extra inputs (`mlp`).
    """

    convolution: type[nn.Conv2d] = nn.Conv2d  # of `conv`

    def __init__(self, config: NetworkConfig, condition: int = 0) -> None:
        super().__init__()
        self.network = config.network
        if config.network == "conv":
            normalise = config.normalisation == "batch"
            planes = config.channels + condition
            self.stages = encoder_stages(planes, config.widths, config.depth, normalise, self.convolution)
            self.side = config.side
            self.feature_dim = config.widths[-1] * config.side**2
        else:
            pixels = config.channels * config.size**2
            self.stages = layers((pixels + condition, *config.hidden), config.activation)
            self.feature_dim = (pixels + condition, *config.hidden)[-1]

    def features(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Features `(B, feature_dim)` of images `(B, C, S, S)` in [0, 1] and their condition `(B, condition)`."""
        if self.network == "mlp":
            h = (2.0 * x - 1.0).flatten(1)
            out: Tensor = self.stages(h if condition is None else torch.cat([h, condition], dim=1))
            return out
        return self.flat(self.stages(self._planes(x, condition)))

    def flat(self, last: Tensor) -> Tensor:
        """The flattened last feature map `(B, feature_dim)`; maps of images of another size are resampled."""
        return resize(last, self.side).flatten(1)

    def maps(self, x: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """The output of each stage of `conv`, from fine to coarse, `(B, widths[k], S / 2^(k + 1), S / 2^(k + 1))`."""
        h = self._planes(x, condition)
        outputs: list[Tensor] = []
        for module in self.stages:
            h = module(h)
            if isinstance(module, Block):  # the first block of its stage; residual blocks follow
                outputs.append(h)
            else:
                outputs[-1] = h
        return outputs

    @staticmethod
    def _planes(x: Tensor, condition: Tensor | None) -> Tensor:
        h = 2.0 * x - 1.0
        if condition is not None:
            planes = condition[:, :, None, None].expand(-1, -1, *x.shape[2:])
            h = torch.cat([h, planes], dim=1)
        return h.contiguous(memory_format=torch.channels_last)


class ImageDecoder(nn.Module):
    """Latents to the parameter of the likelihood at each value: the mean, or the logit for `bernoulli`.

    Args:
        latent_dim: size of the input, including the condition.
        planes: outputs per pixel; None outputs the parameter of the likelihood for each channel.
    """

    convolution: type[nn.Conv2d] = nn.Conv2d  # of `conv`
    transposed: type[nn.ConvTranspose2d] = nn.ConvTranspose2d

    def __init__(self, config: NetworkConfig, latent_dim: int, planes: int | None = None) -> None:
        super().__init__()
        self.is_mean = planes is None and config.likelihood != "bernoulli"
        self.network = config.network
        planes = config.channels if planes is None else planes
        self.shape = (planes, config.decoded_size, config.decoded_size)
        if config.network == "conv":
            normalise = config.normalisation == "batch"
            widths = config.decoder_widths
            self.side = config.decoded_size // 2 ** len(widths)
            self.start = nn.Linear(latent_dim, widths[0] * self.side**2)
            self.stages = decoder_stages(
                widths[0], widths[1:], config.decoder_depth, normalise, self.convolution, self.transposed
            )
            self.out: nn.Module = self.transposed(widths[-1], planes, 4, stride=2, padding=1)
        else:
            units = (latent_dim, *reversed(config.hidden))
            self.stages = layers(units, config.activation)
            self.out = nn.Linear(units[-1], planes * config.decoded_size**2)

    def forward(self, z: Tensor) -> Tensor:
        """`(B, planes, D, D)` with D = `decoded_size`; means may lie slightly outside of [0, 1]."""
        if self.network == "conv":
            h = nn.functional.silu(self.start(z)).reshape(len(z), -1, self.side, self.side)
            out: Tensor = self.out(self.stages(h.contiguous(memory_format=torch.channels_last)))
        else:
            out = self.out(self.stages(z)).reshape(len(z), *self.shape)
        out = out.to(z.dtype)
        return 0.5 + 0.5 * out if self.is_mean else out
