"""Invertible layers of normalising flows, on vectors `(B, D)` and images `(B, D, H, W)` alike.

A flow maps x to z by layers z = f_n(.. f_1(x)) with known inverses and log-determinants, so that
    log p(x) = log N(z; 0, I) + sum_i log |det d f_i / d f_(i-1)|.

* `SplitCoupling`, `CheckerboardCoupling`: some values pass; the others are scaled and shifted by functions of those.
  Dinh, Sohl-Dickstein, Bengio: Density Estimation Using Real NVP, 2017, https://arxiv.org/abs/1605.08803:
  y_a = x_a, y_b = x_b exp(s(x_a)) + t(x_a), log-determinant sum_b s(x_a) (equations 4 to 9); figure 3 has the masks,
  and section 3.6 the `Squeeze`.
* `ActNorm`, `Mix`: an affine map per channel, started so that its first batch has mean 0 and variance 1, and an
  invertible 1x1 convolution W = P L (U + diag(s)). Kingma, Dhariwal: Glow, 2018, https://arxiv.org/abs/1807.03039,
  sections 3.1 and 3.2; log-determinants H W sum log |s|.

Differs from the papers: s is g tanh(.) with a learnt g per channel in both, where Glow has a sigmoid; the last layers
of s and t start near zero, not at zero, so that every parameter has a gradient from the first step.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from training.layers.blocks import Residual
from training.parallel.sums import channel_moments

PermutationKind = Literal["reverse", "random", "1x1"]
START = 1e-3  # standard deviation of the weights that s and t start from
SMALLEST = 1e-6  # standard deviation below which a channel counts as constant


class Transformed(NamedTuple):
    """The values after a bijection, of the shape of those before it, and its log-determinant in nats `(B,)`."""

    z: Tensor
    log_det: Tensor


class Bijection(nn.Module):
    """An invertible map of values `(B, D, ...)`."""

    @abstractmethod
    def forward(self, x: Tensor) -> Transformed: ...

    @abstractmethod
    def inverse(self, z: Tensor) -> Tensor:
        """The values that `forward` maps to `z`."""


class Chain(Bijection):
    """Bijections one after the other, which can also be applied in part."""

    def __init__(self, layers: Iterable[Bijection]) -> None:
        super().__init__()
        self.layers: Any = nn.ModuleList(layers)

    def __len__(self) -> int:
        return len(self.layers)

    def forward(self, x: Tensor, layers: int | None = None) -> Transformed:
        """Apply the first `layers` layers; None applies all."""
        log_det = x.new_zeros(x.shape[0])
        for layer in self.layers[: self._checked(layers)]:
            x, added = layer(x)
            log_det = log_det + added
        return Transformed(x, log_det)

    def inverse(self, z: Tensor, layers: int | None = None) -> Tensor:
        """Undo the last `layers` layers, the last one first; None undoes all."""
        for layer in reversed(self.layers[len(self) - self._checked(layers) :]):
            z = layer.inverse(z)
        return z

    def _checked(self, layers: int | None) -> int:
        if layers is None:
            return len(self)
        if not 0 <= layers <= len(self):
            raise ValueError(f"layers must be between 0 and {len(self)}, not {layers}")
        return layers


class _Coupling(Bijection):
    """What couplings share: s = g tanh(h) and t from a network with outputs h and t `(B, 2 channels, ...)`."""

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network = network
        self.bound = nn.Parameter(torch.ones(channels))

    def _scale_and_shift(self, passed: Tensor) -> tuple[Tensor, Tensor]:
        h, shift = self.network(passed).to(passed.dtype).chunk(2, dim=1)
        return _per_channel(self.bound, h) * torch.tanh(h), shift


class SplitCoupling(_Coupling):
    """A coupling whose second half of the channels is transformed given the first, which is larger if D is odd.

    Args:
        network: `(B, D - D // 2, ...)` to `(B, 2 (D // 2), ...)`.
        channels: D, at least 2.
    """

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__(network, channels // 2)
        self.passed = halves(channels)[0]

    def forward(self, x: Tensor) -> Transformed:
        passed, changed = x[:, : self.passed], x[:, self.passed :]
        log_scale, shift = self._scale_and_shift(passed)
        changed = changed * torch.exp(log_scale) + shift
        return Transformed(torch.cat([passed, changed], dim=1), log_scale.flatten(1).sum(dim=1))

    def inverse(self, z: Tensor) -> Tensor:
        passed, changed = z[:, : self.passed], z[:, self.passed :]
        log_scale, shift = self._scale_and_shift(passed)
        return torch.cat([passed, (changed - shift) * torch.exp(-log_scale)], dim=1)


class CheckerboardCoupling(_Coupling):
    """A coupling of images whose white squares are transformed given the black ones, or the reverse.

    Args:
        network: images `(B, D, S, S)` whose transformed pixels are 0 to `(B, 2 D, S, S)`.
        channels: D.
        size: S.
        parity: 0 keeps the pixels whose row and column sum to an even number, 1 the others.
    """

    mask: Tensor

    def __init__(self, network: nn.Module, channels: int, size: int, parity: int) -> None:
        super().__init__(network, channels)
        self.register_buffer("mask", checkerboard(size, parity), persistent=False)

    def forward(self, x: Tensor) -> Transformed:
        log_scale, shift = self._masked(x)
        return Transformed(x * torch.exp(log_scale) + shift, log_scale.flatten(1).sum(dim=1))

    def inverse(self, z: Tensor) -> Tensor:
        log_scale, shift = self._masked(z)
        return (z - shift) * torch.exp(-log_scale)

    def _masked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """s and t, which are 0 where the values pass."""
        log_scale, shift = self._scale_and_shift(x * self.mask)
        return log_scale * (1.0 - self.mask), shift * (1.0 - self.mask)


class Permutation(Bijection):
    """Channels in another order; channel i of the result is channel `order[i]`."""

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        self.order = torch.tensor(order)  # not a buffer: it follows from the config
        self.back = torch.argsort(self.order)

    def forward(self, x: Tensor) -> Transformed:
        return Transformed(x[:, self.order], x.new_zeros(x.shape[0]))

    def inverse(self, z: Tensor) -> Tensor:
        return z[:, self.back]


class Mix(Bijection):
    """An invertible linear map of the channels, the same at every pixel: W = P L (U + diag(s)).

    P and the signs of s are fixed; L, U and log |s| are learnt. W starts as a random rotation.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64)).Q
        permutation, lower, upper = (part.float() for part in torch.linalg.lu(rotation))
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(diagonal.abs().log())

    def weight(self) -> Tensor:
        """W `(D, D)`."""
        lower = self.lower.tril(-1) + torch.eye(len(self.lower), dtype=self.lower.dtype, device=self.lower.device)
        upper = self.upper.triu(1) + torch.diag(self.sign * torch.exp(self.log_diagonal))
        weight: Tensor = self.permutation @ lower @ upper
        return weight

    def forward(self, x: Tensor) -> Transformed:
        with torch.autocast(x.device.type, enabled=False):  # in halves, it would not be undone by the inverse
            z = (self.weight() @ x.reshape(*x.shape[:2], -1)).reshape(x.shape)
        pixels = x[0, 0].numel()
        return Transformed(z, (pixels * self.log_diagonal.sum()).expand(x.shape[0]))

    def inverse(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            x: Tensor = torch.linalg.solve(self.weight(), z.reshape(*z.shape[:2], -1))
        return x.reshape(z.shape)


class ActNorm(Bijection):
    """A shift and a scale per channel, (x + b) exp(l), set by the first batch in training mode and then learnt."""

    started: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.register_buffer("started", torch.tensor(False))
        self._has_started = False  # spares reading the buffer from a GPU at every step

    def forward(self, x: Tensor) -> Transformed:
        if self.training and not self._has_started:
            self._start(x.detach())
            self._has_started = True
        z = (x + _per_channel(self.shift, x)) * torch.exp(_per_channel(self.log_scale, x))
        return Transformed(z, (x[0, 0].numel() * self.log_scale.sum()).expand(x.shape[0]))

    def inverse(self, z: Tensor) -> Tensor:
        return z * torch.exp(-_per_channel(self.log_scale, z)) - _per_channel(self.shift, z)

    @torch.no_grad()
    def _start(self, x: Tensor) -> None:
        if bool(self.started):
            return
        mean, variance = channel_moments(x)
        self.shift.copy_(-mean)
        self.log_scale.copy_(-variance.sqrt().clamp(min=SMALLEST).log())
        self.started.fill_(True)


class Squeeze(Bijection):
    """Squares of 2 x 2 pixels become channels: `(B, D, H, W)` to `(B, 4 D, H / 2, W / 2)`."""

    def forward(self, x: Tensor) -> Transformed:
        B, D, H, W = x.shape
        squares = x.reshape(B, D, H // 2, 2, W // 2, 2).permute(0, 1, 3, 5, 2, 4)
        return Transformed(squares.reshape(B, 4 * D, H // 2, W // 2), x.new_zeros(B))

    def inverse(self, z: Tensor) -> Tensor:
        B, D, H, W = z.shape
        squares = z.reshape(B, D // 4, 2, 2, H, W).permute(0, 1, 4, 2, 5, 3)
        return squares.reshape(B, D // 4, 2 * H, 2 * W)


def build_permutation(kind: PermutationKind, channels: int, seed: int) -> Bijection:
    """Channels in reverse, in a random order that the seed determines, or mixed by a learnt 1x1 convolution."""
    if kind == "1x1":
        return Mix(channels)
    if kind == "reverse":
        return Permutation(range(channels - 1, -1, -1))
    return Permutation(torch.randperm(channels, generator=torch.Generator().manual_seed(seed)).tolist())


def dense_network(inputs: int, outputs: int, hidden: Sequence[int]) -> nn.Sequential:
    """Vectors `(B, inputs)` to `(B, outputs)`, with SiLU between the layers, nearly 0 at first."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.SiLU()]
        inputs = width
    return nn.Sequential(*layers, _near_zero(nn.Linear(inputs, outputs)))


def convolutional_network(inputs: int, outputs: int, width: int, blocks: int) -> nn.Sequential:
    """Images `(B, inputs, H, W)` to `(B, outputs, H, W)` through residual blocks, nearly 0 at first."""
    last = _near_zero(nn.Conv2d(width, outputs, 3, padding=1))
    inner = [Residual(width, normalise=False) for _ in range(blocks)]
    return nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1), *inner, nn.SiLU(), last)


def checkerboard(size: int, parity: int) -> Tensor:
    """A mask `(1, S, S)`: 1 where row and column sum to a number of this parity, else 0."""
    places = torch.arange(size)
    return ((places[:, None] + places[None, :]) % 2 == parity).float()[None]


def halves(channels: int) -> tuple[int, int]:
    """Sizes of the two halves of channels, the first larger by one if their number is odd."""
    return channels - channels // 2, channels // 2


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Values `(D,)` in a shape that broadcasts over `x` `(B, D, ...)`."""
    return values.reshape(-1, *(1,) * (x.ndim - 2))


def _near_zero(layer: Any) -> Any:
    nn.init.normal_(layer.weight, std=START)
    nn.init.zeros_(layer.bias)
    return layer
