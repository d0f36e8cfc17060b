"""What the flows over images share: dequantisation, levels, the likelihood, samples and the search vector.

Dinh, Sohl-Dickstein, Bengio: Density Estimation Using Real NVP, 2017, https://arxiv.org/abs/1605.08803. An 8-bit value
v becomes a real one, u = (v + e) / 256 with e uniform in [0, 1), and then an unbounded one, logit(a + (1 - 2 a) u)
(section 4.1, with the symmetric margins of the authors' code). After each level but the last, half of the channels are
factored out as latents z_1 .. z_(L-1), which later levels leave alone (section 3.6); z_L is the rest. All are N(0, I):
    log p(v) >= E_e [ log N(f(v + e); 0, I) + log |det df/dv| ]
by Jensen (Theis, van den Oord, Bethge, 2016, https://arxiv.org/abs/1511.01844, section 3.1): the density is exact, the
probability of the 8-bit image has it as a lower bound.

The latent for searching is z_L, the part that describes the whole image. A picture is decoded from it with the factored
latents at 0, the most probable value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from training.layers.checks import check_at_least, check_choice, check_image, check_search
from training.layers.flow import Chain, PermutationKind, Squeeze, Transformed, halves
from training.layers.gaussian import log_standard_normal
from training.layers.search import SearchSpace, Turn
from training.parallel.draws import uniform
from training.protocols import Batch, Likelihood, Loss
from training.reference import Metric

BITS = 256  # values of a channel
MIDDLE = 0.5  # of a value's bin, for latents without noise


@dataclass(frozen=True, kw_only=True)
class ImageFlowConfig:
    """Settings that the configs of flows over images share.

    Args:
        size: side of the images in pixels, a multiple of 2 to the power of `levels`.
        channels: 1 or 3.
        levels: number of scales; after each but the last, half of the values are factored out.
        width: features of the networks inside the couplings.
        permutation: of the channels between couplings: `reverse`, `random`, or `1x1` (an invertible convolution).
        margin: a of the logit, which keeps it finite; in (0, 0.5).
        search_dim: number of principal axes of the latent in the search vector; None keeps all.
        whitening, turn: see `training.layers.search`.
    """

    size: int = 32
    channels: int = 3
    levels: int = 3
    width: int = 32
    permutation: PermutationKind = "reverse"
    margin: float = 0.05
    search_dim: int | None = None
    whitening: float = 0.5
    turn: Turn = "pca"

    def __post_init__(self) -> None:
        check_image(self.size, self.channels)
        check_at_least("levels", self.levels, 1)
        check_at_least("width", self.width, 1)
        if self.size % 2**self.levels:
            raise ValueError(f"size must be a multiple of {2**self.levels} with {self.levels} levels, not {self.size}")
        check_choice("permutation", self.permutation, get_args(PermutationKind))
        if not 0.0 < self.margin < 0.5:
            raise ValueError(f"margin must lie between 0 and 0.5, not {self.margin}")
        check_search(self.search_dim, self.latent_dim, self.whitening, self.turn)

    @property
    def latent_dim(self) -> int:
        """Size of z_L."""
        return self.channels * self.size**2 >> (self.levels - 1)


class Latents(NamedTuple):
    """Latents z_1 .. z_L of images, each `(B, C_l, S_l, S_l)`, and the log-determinant in nats `(B,)`."""

    parts: list[Tensor]
    log_det: Tensor


class ImageFlow(nn.Module):
    """A flow over images.

    Args:
        levels: the bijections of each level, on the channels that the level before it did not factor out.
    """

    metric: Metric = "cosine"
    is_exportable = True  # to ONNX

    def __init__(self, config: ImageFlowConfig, levels: Sequence[Chain]) -> None:
        super().__init__()
        self.config: Any = config  # the subclass's own config
        self.levels: Any = nn.ModuleList(levels)
        self.shapes = latent_shapes(levels, config.channels, config.size)
        self.search = SearchSpace(
            config.latent_dim, config.search_dim or config.latent_dim, config.whitening, config.turn
        )

    @property
    def dim(self) -> int:
        return self.search.dim

    def transform(self, values: Tensor) -> Latents:
        """Latents of real-valued images `(B, C, S, S)`."""
        parts, log_det = [], values.new_zeros(values.shape[0])
        for number, level in enumerate(self.levels):
            if number:
                kept, _ = halves(values.shape[1])
                parts.append(values[:, kept:])
                values = values[:, :kept]
            values, added = level(values)
            log_det = log_det + added
        return Latents([*parts, values], log_det)

    def restore(self, parts: Sequence[Tensor]) -> Tensor:
        """The real-valued images `(B, C, S, S)` of latents; the inverse of `transform`."""
        *factored, values = parts
        for level in reversed(self.levels):
            values = level.inverse(values)
            if factored:
                values = torch.cat([values, factored.pop()], dim=1)
        return values

    def latent(self, x: Tensor) -> Tensor:
        """z_L `(B, latent_dim)` of images `(B, C, S, S)` in [0, 1], with each value in the middle of its bin."""
        return self.transform(dequantise(x, MIDDLE, self.config.margin).z).parts[-1].flatten(1)

    def embed(self, x: Tensor) -> Tensor:
        vectors: Tensor = self.search(self.latent(x))
        return vectors

    def log_likelihood(self, x: Tensor) -> Likelihood:
        """A lower bound in nats per image, from one draw of e, the same for all images and at every call."""
        noise = torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
        return Likelihood(self._nats(x, noise)[0], exact=False)

    def loss(self, batch: Batch, step: int) -> Loss:
        """The negative lower bound of the targets in nats per image.

        The density of an image does not divide into pixels: pixels with a weight below 1 are faded to grey by it. In
        training, the latent is that of the dequantised image.
        """
        target, grey = batch.target, 0.5
        if batch.weight is not None:
            target = grey + (target - grey) * batch.weight
        noise = uniform(len(target), *target.shape[1:], device=target.device, dtype=target.dtype)
        nats, latent = self._nats(target, noise)
        mean = nats.mean()
        is_own = self.training and batch.x is batch.target and batch.weight is None
        return Loss(-mean, {"log_likelihood": mean.detach()}, latent if is_own else self.latent(batch.x))

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> tuple[Self, Any]:
        """This model, with its search space fitted to the latents."""
        self.search.fit(torch.cat([self.latent(batch.x).cpu() for batch in batches]))
        return self, self.config

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None, *, temperature: float = 1.0) -> Tensor:
        """Images `(count, C, S, S)` in [0, 1] of latents drawn from N(0, temperature^2 I)."""
        parts = [
            temperature * torch.randn(count, *shape, generator=generator).to(self.search.offset)
            for shape in self.shapes
        ]
        return quantise(self.restore(parts), self.config.margin)

    def decode(self, latent: Tensor) -> Tensor:
        """Images `(B, C, S, S)` in [0, 1] of latents z_L `(B, latent_dim)`, with the factored latents at 0."""
        *factored, last = self.shapes
        parts = [latent.new_zeros(len(latent), *shape) for shape in factored]
        return quantise(self.restore([*parts, latent.reshape(-1, *last)]), self.config.margin)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images from z_L alone; with all latents, a flow restores every image exactly."""
        return self.decode(self.latent(x))

    def _nats(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The bound in nats `(B,)`, and z_L `(B, latent_dim)`."""
        values, log_det = dequantise(x, noise, self.config.margin)
        parts, added = self.transform(values)
        prior = torch.stack([log_standard_normal(part.flatten(1)) for part in parts]).sum(dim=0)
        return prior + log_det + added, parts[-1].flatten(1)


def latent_shapes(levels: Sequence[Chain], channels: int, size: int) -> list[tuple[int, int, int]]:
    """Shapes of the latents z_1 .. z_L of images `(channels, size, size)`."""
    shapes = []
    for level in levels:
        for layer in level.layers:
            if isinstance(layer, Squeeze):
                channels, size = 4 * channels, size // 2
        kept, factored = halves(channels)
        shapes.append((factored, size, size))
        last, channels = (channels, size, size), kept
    return [*shapes[:-1], last]


def dequantise(x: Tensor, noise: Tensor | float, margin: float) -> Transformed:
    """Logits of dequantised 8-bit images, and the log-determinant with respect to the 8-bit values.

    Args:
        x: `(B, C, S, S)`, multiples of 1/255 in [0, 1].
        noise: e in [0, 1).
    """
    share = margin + (1.0 - 2.0 * margin) * ((BITS - 1) * x + noise) / BITS
    logits = torch.log(share) - torch.log1p(-share)
    each = math.log((1.0 - 2.0 * margin) / BITS) - logsigmoid(logits) - logsigmoid(-logits)
    return Transformed(logits, each.flatten(1).sum(dim=1))


def quantise(logits: Tensor, margin: float) -> Tensor:
    """Images in [0, 1] of logits, without rounding; the inverse of `dequantise` in the middle of each bin."""
    share = (torch.sigmoid(logits) - margin) / (1.0 - 2.0 * margin)
    return ((BITS * share - MIDDLE) / (BITS - 1)).clamp(0.0, 1.0)
