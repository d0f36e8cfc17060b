"""Convolutions whose rows have a direction: a row of the output depends on no row above, or on no row below.

A kernel of k rows and stride s, padded by k - s rows at the bottom alone, reads rows s r and below for output row r.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad


class UpwardConv2d(nn.Conv2d):
    """An anti-causal convolution: a row depends on the rows of its own place and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, padding: int, **others: Any) -> None:
        super().__init__(inputs, outputs, kernel, padding=(0, padding), **others)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad(x, (0, 0, 0, self.kernel_size[0] - self.stride[0])))


class DownwardConv2d(nn.Conv2d):
    """A causal convolution: a row depends on the rows of its own place and above."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, padding: int, **others: Any) -> None:
        super().__init__(inputs, outputs, kernel, padding=(0, padding), **others)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad(x, (0, 0, self.kernel_size[0] - self.stride[0], 0)))


class DownwardConvTranspose2d(nn.ConvTranspose2d):
    """A causal enlargement by the stride s: rows s r to s r + s - 1 depend on row r and those above."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, padding: int, **others: Any) -> None:
        super().__init__(inputs, outputs, kernel, padding=(0, padding), **others)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return super().forward(x, output_size)[:, :, : self.stride[0] * x.shape[2]]
