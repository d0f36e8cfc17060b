"""Cropping and resizing inside a model, as matrix products.

The weights are those of Pillow's `BILINEAR` filter, a triangle that widens with the reduction to avoid aliasing. Matrix
products have gradients, can be exported to ONNX, and allow a different box for every image.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-6


def filter_weights(start: Tensor, stop: Tensor, side: int, out: int) -> Tensor:
    """Weights `(B, out, side)` that resample the span from `start` to `stop` of a line of `side` pixels to `out`.

    Args:
        start, stop: `(B,)` as fractions of the line, `start < stop`. Beyond [0, 1] the nearest pixel is repeated.
    """
    scale = (stop - start) * side / out  # pixels of the line per pixel of the output
    positions = torch.arange(out, device=start.device, dtype=start.dtype) + 0.5
    centres = start[:, None] * side + scale[:, None] * positions
    centres = centres.clamp(0.5, side - 0.5)
    pixels = torch.arange(side, device=start.device, dtype=start.dtype) + 0.5
    distance = (pixels - centres[:, :, None]).abs() / scale.clamp(min=1.0)[:, None, None]
    weights = (1.0 - distance).clamp(min=0.0)
    return weights / weights.sum(dim=2, keepdim=True).clamp(min=TINY)


def crop(x: Tensor, boxes: Tensor, size: int) -> Tensor:
    """The box of each image, resized to `(B, C, size, size)`.

    Args:
        x: `(B, C, H, W)`.
        boxes: left, top, right, bottom `(B, 4)` as fractions of the width and height.
    """
    left, top, right, bottom = boxes.unbind(dim=1)
    across = filter_weights(left, right, x.shape[3], size)
    down = filter_weights(top, bottom, x.shape[2], size)
    return down[:, None] @ x @ across[:, None].transpose(2, 3)


def resize(x: Tensor, size: int) -> Tensor:
    """Whole images `(B, C, H, W)` resized to `(B, C, size, size)`; unchanged if they have that size."""
    if x.shape[2] == size and x.shape[3] == size:
        return x
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=x.device, dtype=x.dtype)
    return crop(x, whole, size)
