"""Parallel multiscale generation: a small image pixel by pixel, whose side is then doubled repeatedly in three passes.

Reed et al.: Parallel Multiscale Autoregressive Density Estimation, 2017, https://arxiv.org/abs/1703.03664. The pixels
of an image are divided into four groups by the parity of row and column (figure 2); those with both even form the image
of half the side. Given that image, the other three groups follow one after the other,
    log p(x) = log p(x_base) + sum_scales sum_(g = 2..4) log p(x_g | x_1 .. x_(g-1)),
with all pixels of a group at once, independent given the earlier groups. Beyond its base an image takes
3 log2(side / base) passes, whereas raster order takes one per pixel. The base is a gated PixelCNN.

Differs from the paper: the pixels of a group are fully independent, without the paper's patches within a group; the
channels of a pixel are drawn from one mixture of logistics instead of successive softmaxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, silu

from training.layers.autoregressive import Autoregressive, AutoregressiveConfig, PixelLogProb, to_input
from training.layers.checks import check_at_least
from training.layers.distributions import PixelKind, build_distribution
from training.layers.gated import GatedNetwork
from training.layers.raster import Drawing, RasterOutput, predict

GROUPS = ((0, 1), (1, 0), (1, 1))  # row and column of the first pixel of each group, in order
BASE_KERNEL = 5


@dataclass(frozen=True, kw_only=True)
class MultiscaleConfig(AutoregressiveConfig):
    """Configuration of `Multiscale`; see also `AutoregressiveConfig`.

    Args:
        base: side of the image that is drawn pixel by pixel; `size` is this times a power of two.
        width: features per pixel.
        layers: layers of the base's network after the first.
        blocks: residual blocks of each group's network.
        pool: cells along each side of the grid over which features are averaged; divides `size`.
    """

    likelihood: PixelKind = "logistic-mixture"
    base: int = 8
    width: int = 32
    layers: int = 4
    blocks: int = 3
    pool: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("width", self.width, self.channels)
        check_at_least("layers", self.layers, 0)
        check_at_least("blocks", self.blocks, 1)
        check_at_least("pool", self.pool, 1)
        scale = self.size // max(self.base, 1)
        if self.base < 2 or self.base * scale != self.size or scale & (scale - 1) or scale < 2:
            raise ValueError(f"base must be size ({self.size}) divided by 2, 4, 8, .. and at least 2, not {self.base}")
        if self.size % self.pool:
            raise ValueError(f"pool must divide size ({self.size}), not be {self.pool}")
        if self.likelihood == "categorical" and self.channels > 1:
            raise ValueError(
                "likelihood must be logistic-mixture for colour, as all channels of a pixel are drawn at once"
            )

    @property
    def latent_dim(self) -> int:
        return self.width * self.pool**2


class Group(NamedTuple):
    """A group of pixels, and the pixels before it.

    Args:
        step: distance in the image between adjacent pixels of this scale.
        row, column: position of the group's first pixel at this scale.
        known: the image at this scale with the pixels before the group, and a plane that marks them `(B, C + 1, h, w)`.
    """

    step: int
    row: int
    column: int
    known: Tensor

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the group in the whole image."""
        return tuple(slice(first * self.step, None, 2 * self.step) for first in (self.row, self.column))  # type: ignore[return-value]


class GroupNetwork(nn.Module):
    """The known pixels of an image at a scale to distribution parameters at every pixel.

    Args:
        condition: features of the condition; 0 for no condition.
    """

    def __init__(self, inputs: int, parameters: int, width: int, blocks: int, condition: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 5, padding=2)
        self.condition = nn.Conv2d(condition, width, 1, bias=False) if condition else None
        self.blocks: Any = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2)) for _ in range(blocks)
        )
        self.out = nn.Conv2d(width, parameters, 1)

    def forward(self, known: Tensor, given: Tensor | None = None) -> RasterOutput:
        """Features and parameters of images `(B, C + 1, h, w)`, with a condition `(B, F, 1, 1)`."""
        h = self.first(known)
        if self.condition is not None:
            h = h + self.condition(given)
        for first, second in self.blocks:
            h = h + second(silu(first(silu(h))))
        return RasterOutput(h, self.out(silu(h)))


class Multiscale(Autoregressive):
    """A multiscale model; its code is the features of the last group's network, averaged over a grid.

    Example:
        >>> model = Multiscale(MultiscaleConfig(size=16, base=4, width=6, layers=1, blocks=1))
        >>> model.sample(2).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(self, config: MultiscaleConfig) -> None:
        super().__init__(config)
        self.distribution = build_distribution(config.likelihood, config.channels, config.mixtures)
        parameters, inputs, classes = self.distribution.parameters, config.channels + 1, config.classes or 0
        self.base: Any = GatedNetwork(
            inputs, parameters, config.width, BASE_KERNEL, (1,) * config.layers, config.width,
            groups=config.channels if self.distribution.grouped else 0, condition=classes,
        )  # fmt: skip
        doublings = (config.size // config.base).bit_length() - 1
        self.scales: Any = nn.ModuleList(
            nn.ModuleList(GroupNetwork(inputs, parameters, config.width, config.blocks, classes) for _ in GROUPS)
            for _ in range(doublings)
        )

    def pixel_log_prob(self, x: Tensor, label: Tensor | None = None) -> PixelLogProb:
        nats, given = x.new_zeros(x.shape[0], *x.shape[2:]), self.shown(label, len(x))
        first = self.config.size // self.config.base
        base = x[:, :, ::first, ::first]
        parameters = predict(self.base, to_input(base), given).parameters.to(x.dtype)
        nats[:, ::first, ::first] = self.distribution.log_prob(base, parameters)
        for network, group in self._groups(x):
            output = network(group.known, given)
            rows, columns = group.slices
            parameters = output.parameters[:, :, group.row :: 2, group.column :: 2].to(x.dtype)
            nats[:, rows, columns] = self.distribution.log_prob(x[:, :, rows, columns], parameters)
        return PixelLogProb(nats, self._pool(output.features).to(x.dtype))

    def latent(self, x: Tensor) -> Tensor:
        *_, (network, group) = self._groups(x)
        return self._pool(network(group.known, self.labels.planes(None, x.shape[0])).features).to(x.dtype)

    @torch.no_grad()
    def sample(
        self,
        count: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
        label: Tensor | None = None,
    ) -> Tensor:
        """Images `(count, C, S, S)` in [0, 1], in three passes per doubling of the side.

        Args:
            temperature: below 1 for more probable images; 0 takes the most probable values.
            label: `(count,)`; None draws labels by their training frequency.
        """
        config = self.config
        given = self.labels.planes(self.labels.or_drawn(label, count, generator), count)
        x = self.search.offset.new_zeros(count, config.channels, config.size, config.size)
        first = config.size // config.base
        drawing = Drawing(self.base, self.distribution, to_input, temperature)
        x[:, :, ::first, ::first] = drawing.draw(x[:, :, ::first, ::first], None, given, generator)
        for network, group in self._groups(x):
            parameters = network(group.known, given).parameters[:, :, group.row :: 2, group.column :: 2]
            rows, columns = group.slices
            x[:, :, rows, columns] = self._draw(parameters, generator, temperature)
        return x

    def _draw(self, parameters: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Pixels `(B, C, h, w)` of a group, all at once."""
        batch, _, height, width = parameters.shape
        flat = parameters.permute(0, 2, 3, 1).flatten(0, 2)
        pixels = flat.new_zeros(len(flat), self.config.channels)
        for step in range(self.distribution.steps):
            pixels = self.distribution.draw(flat, pixels, step, generator, temperature)
        return pixels.reshape(batch, height, width, -1).permute(0, 3, 1, 2)

    def _groups(self, x: Tensor) -> Iterator[tuple[Any, Group]]:
        """The networks and groups in order; each receives the current values of `x`."""
        step = self.config.size // self.config.base // 2
        for networks in self.scales:
            is_known = torch.zeros(self.config.size // step, self.config.size // step, device=x.device, dtype=x.dtype)
            is_known[::2, ::2] = 1.0
            for network, (row, column) in zip(networks, GROUPS, strict=True):
                image = x[:, :, ::step, ::step]
                known = torch.cat([(2.0 * image - 1.0) * is_known, is_known.expand_as(image[:, :1])], dim=1)
                yield network, Group(step, row, column, known)
                is_known = is_known.clone()
                is_known[row::2, column::2] = 1.0
            step //= 2

    def _pool(self, features: Tensor) -> Tensor:
        return avg_pool2d(features, self.config.size // self.config.pool).flatten(1)
