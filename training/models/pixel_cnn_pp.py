"""PixelCNN++: whole pixels from a mixture of logistics, with a network over several scales.

Salimans, Karpathy, Chen, Kingma: PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and
Other Modifications, 2017, https://arxiv.org/abs/1701.05517: the likelihood (section 2.1), conditioning on whole pixels
(2.2), convolutions of stride 2 instead of dilation (2.3), shortcuts from the downward to the upward pass (2.4), dropout
in the residual blocks (2.5), and weight normalisation as in the authors' code. Two streams as in the gated PixelCNN; a
block is x + a . sigmoid(b) with a, b from two convolutions after concatenated ELUs (figure 2 and the authors' code).

Differs from the paper: smaller, and weights are not normalised, by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from training.layers.autoregressive import RasterConfig, RasterModel
from training.layers.causal import CausalConv2d, Scope
from training.layers.checks import check_at_least
from training.layers.distributions import PixelKind, build_distribution
from training.layers.raster import RasterOutput
from training.layers.weight_norm import normalise_weight
from training.parallel.draws import dropout

INITIAL_SCALE = 0.1  # of the last convolution of a block, as in the authors' code


@dataclass(frozen=True, kw_only=True)
class PixelCnnPpConfig(RasterConfig):
    """Configuration of `PixelCnnPp`; see also `RasterConfig`.

    Args:
        scales: number of scales, each with half the side of the one before.
        blocks: residual blocks of each stream at each scale in the downward pass; one more in the upward pass.
        dropout: dropout rate of the inner features of a block.
        weight_norm: normalise the weights of convolutions, and start their gains from the first batch.
    """

    likelihood: PixelKind = "logistic-mixture"
    scales: int = 3
    blocks: int = 2
    dropout: float = 0.0
    weight_norm: bool = False

    def __post_init__(self) -> None:
        check_at_least("scales", self.scales, 1)
        check_at_least("blocks", self.blocks, 1)
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout}")
        if self.size % 2 ** (self.scales - 1):
            raise ValueError(
                f"size must be a multiple of {2 ** (self.scales - 1)} for {self.scales} scales, not {self.size}"
            )
        if self.likelihood == "categorical" and self.channels > 1:
            raise ValueError(
                "likelihood must be logistic-mixture for colour: categorical predicts channels one after the other, "
                "and this family predicts whole pixels"
            )
        super().__post_init__()


class PixelCnnPp(RasterModel):
    """A PixelCNN++.

    Example:
        >>> model = PixelCnnPp(PixelCnnPpConfig(size=8, width=6, scales=2, blocks=1, pool=2))
        >>> model.log_likelihood(torch.rand(2, 3, 8, 8)).nats.shape
        torch.Size([2])
    """

    def __init__(self, config: PixelCnnPpConfig) -> None:
        distribution = build_distribution(config.likelihood, config.channels, config.mixtures)
        network = ScaledNetwork(
            config.channels + 1, distribution.parameters, config.width,
            scales=config.scales, blocks=config.blocks, drop=config.dropout, condition=config.classes or 0,
        )  # fmt: skip
        if config.weight_norm:
            network.normalise_weights()
        super().__init__(config, network)


class GatedBlock(nn.Module):
    """x + a . sigmoid(b), of one stream.

    Args:
        beside: features that are added from the other stream or the downward pass.
        is_vertical: the convolutions include columns on both sides, as they only read rows above.
        condition: features of the condition.
    """

    def __init__(self, width: int, beside: int, *, is_vertical: bool, drop: float, condition: int) -> None:
        super().__init__()
        self.drop = drop
        self.first = stream_conv(2 * width, width, is_vertical)
        self.beside = CausalConv2d(2 * beside, width, (1, 1)) if beside else None
        self.second = stream_conv(2 * width, 2 * width, is_vertical)
        self.condition = nn.Conv2d(condition, 2 * width, 1, bias=False) if condition else None
        with torch.no_grad():
            self.second.weight.mul_(INITIAL_SCALE)

    def forward(self, at: Scope, x: Tensor, beside: Tensor | None, condition: Tensor | None) -> Tensor:
        h: Tensor = self.first(at, both_signs(x))
        if self.beside is not None and beside is not None:
            h = h + self.beside(at, both_signs(beside))
        h = dropout(both_signs(h), self.drop, self.training)
        wide = self.second(at, h)
        if self.condition is not None and condition is not None:
            wide = wide + self.condition(condition)
        a, b = wide.chunk(2, dim=1)
        out: Tensor = x + a * torch.sigmoid(b)
        return out


class Rows(NamedTuple):
    """The vertical stream of a scale in a scope: the downward pass, the coarser scales, and the upward pass."""

    down: list[Tensor]
    inside: Any
    up: list[Tensor]


class Scale(nn.Module):
    """Both streams at one scale, with the coarser scales nested inside."""

    def __init__(self, width: int, scales: int, blocks: int, drop: float, condition: int) -> None:
        super().__init__()

        def stream(count: int, beside: int, is_vertical: bool) -> nn.ModuleList:
            made = (
                GatedBlock(width, beside, is_vertical=is_vertical, drop=drop, condition=condition) for _ in range(count)
            )
            return nn.ModuleList(made)

        back = blocks + (1 if scales > 1 else 0)
        self.down_v, self.down_h = stream(blocks, 0, True), stream(blocks, width, False)
        self.up_v, self.up_h = stream(back, width, True), stream(back, 2 * width, False)
        self.inside: Any = None
        if scales > 1:
            self.shrink_v, self.shrink_h = (stream_conv(width, width, each, stride=2) for each in (True, False))
            self.grow_v = nn.ConvTranspose2d(width, width, (2, 3), stride=2)
            self.grow_h = nn.ConvTranspose2d(width, width, (2, 2), stride=2)
            self.inside = Scale(width, scales - 1, blocks, drop, condition)

    def vertical(self, at: Scope, v: Tensor, condition: Tensor | None) -> Rows:
        down = [v]
        for block in self.down_v:
            down.append(block(at, down[-1], None, condition))
        inside, shortcuts = None, list(down)
        if self.inside is None:
            v = shortcuts.pop()
        else:
            v, inside = at.halved(self.shrink_v, down[-1], lambda x, scope: self._inside_v(x, scope, condition))
        up = []
        for block in self.up_v:
            v = block(at, v, shortcuts.pop(), condition)
            up.append(v)
        return Rows(down, inside, up)

    def horizontal(self, at: Scope, h: Tensor, rows: Rows, condition: Tensor | None) -> Tensor:
        shortcuts = [h]
        for block, beside in zip(self.down_h, rows.down[1:], strict=True):
            shortcuts.append(block(at, shortcuts[-1], at.column(beside), condition))
        if self.inside is None:
            h = shortcuts.pop()
        else:
            h, _ = at.halved(
                self.shrink_h, shortcuts[-1], lambda x, scope: (self._inside_h(x, scope, rows.inside, condition), None)
            )
        for block, beside in zip(self.up_h, rows.up, strict=True):
            h = block(at, h, torch.cat([at.column(beside), shortcuts.pop()], dim=1), condition)
        return h

    def _inside_v(self, x: Tensor, at: Scope, condition: Tensor | None) -> tuple[Tensor, Rows]:
        rows = self.inside.vertical(at, x, condition)
        grown: Tensor = self.grow_v(rows.up[-1])
        return grown[:, :, :, 1:], rows

    def _inside_h(self, x: Tensor, at: Scope, rows: Rows, condition: Tensor | None) -> Tensor:
        out: Tensor = self.grow_h(self.inside.horizontal(at, x, rows, condition))
        return out


class ScaledNetwork(nn.Module):
    """The network of PixelCNN++; see `training.layers.raster.RasterNetwork`.

    Args:
        inputs: planes of the image.
        parameters: outputs per pixel.
    """

    follows_cursor = True

    def __init__(
        self, inputs: int, parameters: int, width: int, *, scales: int, blocks: int, drop: float, condition: int = 0
    ) -> None:
        super().__init__()
        self.above = CausalConv2d(inputs, width, (2, 3), above=2, before=1)
        self.above_for_row = CausalConv2d(inputs, width, (1, 3), above=1, before=1)
        self.left = CausalConv2d(inputs, width, (2, 1), above=1, before=1)
        self.scale = Scale(width, scales, blocks, drop, condition)
        self.out = CausalConv2d(width, parameters, (1, 1))

    def normalise_weights(self) -> None:
        """Normalise the weights of all convolutions that have a bias; see `training.layers.weight_norm`."""
        inner = {module.second for module in self.modules() if isinstance(module, GatedBlock)}
        for module in list(self.modules()):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
                normalise_weight(module, INITIAL_SCALE if module in inner else 1.0)

    def conditions(self, condition: Tensor | None) -> list[Tensor]:
        return [] if condition is None else [condition]

    def vertical(self, at: Scope, conditions: list[Tensor]) -> tuple[Tensor, Rows]:
        rows = self.scale.vertical(at, self.above(at), conditions[0] if conditions else None)
        return self.above_for_row(at), rows

    def horizontal(self, at: Scope, vertical: tuple[Tensor, Rows], conditions: list[Tensor]) -> RasterOutput:
        above, rows = vertical
        h = at.column(above) + self.left(at)
        h = self.scale.horizontal(at, h, rows, conditions[0] if conditions else None)
        return RasterOutput(h, self.out(at, elu(h)))


def stream_conv(inputs: int, outputs: int, is_vertical: bool, *, stride: int = 1) -> CausalConv2d:
    """A convolution of the vertical stream (2 x 3) or of the horizontal one (2 x 2)."""
    return CausalConv2d(inputs, outputs, (2, 3 if is_vertical else 2), above=1, before=1, stride=stride)


def both_signs(x: Tensor) -> Tensor:
    """Concatenated ELU of x and of -x."""
    return elu(torch.cat([x, -x], dim=1))
