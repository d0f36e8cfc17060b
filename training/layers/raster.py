"""Sampling of images pixel by pixel, in raster order, from a network that depends on the pixels before each one.

`Drawing.draw` fills the unknown pixels of images. With a `Cursor` the cost per pixel does not depend on the size of the
image (`training.layers.causal`); naive sampling evaluates the whole network on the whole image for every draw. Both use
the same uniform numbers in the same order, so they draw the same images apart from rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from training.layers.causal import Cursor, Everywhere, Scope
from training.layers.distributions import PixelDistribution


class RasterOutput(NamedTuple):
    """Features `(B, F, h, w)` and distribution parameters `(B, P, h, w)`, each computed from the pixels before it."""

    features: Tensor
    parameters: Tensor


class RasterNetwork(Protocol):
    """A network that processes images in raster order.

    Attributes:
        follows_cursor: whether it can be evaluated row by row and pixel by pixel.
    """

    follows_cursor: bool

    def conditions(self, condition: Tensor | None) -> list[Tensor]:
        """Per-layer projections of a condition `(B, F, H or 1, W or 1)`, computed once; empty without a condition."""
        ...

    def vertical(self, at: Scope, conditions: list[Tensor]) -> Any:
        """The vertical stream, computed from the rows above, along the rows of a scope."""
        ...

    def horizontal(self, at: Scope, vertical: Any, conditions: list[Tensor]) -> RasterOutput:
        """The output in a scope, given the vertical stream."""
        ...


def predict(network: RasterNetwork, image: Tensor, condition: Tensor | None = None) -> RasterOutput:
    """The output at all pixels, in one parallel pass."""
    at, conditions = Everywhere(image), network.conditions(condition)
    return network.horizontal(at, network.vertical(at, conditions), conditions)


@dataclass(frozen=True)
class Drawing:
    """Draws images from a network.

    Args:
        network: predicts each pixel from those before it.
        distribution: distribution of a pixel.
        to_input: maps values `(B, C, H, W)` to the input of the network.
        temperature: see `training.layers.distributions`.
        cached: use a cursor if the network supports it.
    """

    network: RasterNetwork
    distribution: PixelDistribution
    to_input: Callable[[Tensor], Tensor]
    temperature: float = 1.0
    cached: bool = True

    @torch.no_grad()
    def draw(
        self,
        values: Tensor,
        known: Tensor | None = None,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images `(B, C, H, W)` whose unknown pixels are drawn.

        Args:
            values: images; the values of unknown pixels are ignored.
            known: `(H, W)` bool; None draws all pixels.
            condition: condition of the network, `(B, F, H or 1, W or 1)`.
            generator: on the CPU; None uses the global one.

        Raises:
            ValueError: the temperature is below 0.
        """
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, not {self.temperature}")
        values = values.clone()
        known = torch.zeros(values.shape[2:], dtype=torch.bool) if known is None else known.cpu()
        values[:, :, ~known] = 0
        if self.cached and self.network.follows_cursor:
            return self._with_cursor(values, known, condition, generator)
        return self._naively(values, known, condition, generator)

    def _naively(
        self, values: Tensor, known: Tensor, condition: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        for row, column in torch.nonzero(~known).tolist():
            for step in range(self.distribution.steps):
                parameters = predict(self.network, self.to_input(values), condition).parameters[:, :, row, column]
                values[:, :, row, column] = self._draw(parameters, values[:, :, row, column], step, generator)
        return values

    def _with_cursor(
        self, values: Tensor, known: Tensor, condition: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        network, at = self.network, Cursor(self.to_input(values))
        conditions = network.conditions(condition)
        last = int(torch.nonzero((~known).any(dim=1)).max()) if not bool(known.all()) else -1
        for row in range(last + 1):
            vertical = network.vertical(at.to_row(row), conditions)
            if bool(known[row].all()):
                network.horizontal(at, vertical, conditions)
                continue
            for column in range(values.shape[3]):
                at.to_pixel(row, column)
                if bool(known[row, column]):
                    network.horizontal(at, vertical, conditions)
                    continue
                for step in range(self.distribution.steps):
                    parameters = network.horizontal(at, vertical, conditions).parameters[:, :, 0, 0]
                    pixel = self._draw(parameters, values[:, :, row, column], step, generator)
                    values[:, :, row, column] = pixel
                    at.write(row, column, self.to_input(pixel[:, :, None, None])[:, :, 0, 0])
        return values

    def _draw(self, parameters: Tensor, pixel: Tensor, step: int, generator: torch.Generator | None) -> Tensor:
        return self.distribution.draw(parameters, pixel, step, generator, self.temperature)
