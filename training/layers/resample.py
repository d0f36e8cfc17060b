"""Cropping and resizing inside a model, by products of matrices.

The weights are those of Pillow's `BILINEAR` filter, a triangle that grows with the reduction, so that a picture is
reduced without aliasing; as matrices they have gradients and export to ONNX, and each picture has a box of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-6


def filter_weights(start: Tensor, stop: Tensor, side: int, out: int) -> Tensor:
    """Weights `(B, out, side)` that resample the span from `start` to `stop` of a line of `side` pixels to `out`.

    Args:
        start, stop: `(B,)` in shares of the line, `start < stop`. What lies beyond [0, 1] continues the nearest pixels.
    """
    scale = (stop - start) * side / out  # pixels of the line per pixel of the output
    places = torch.arange(out, device=start.device, dtype=start.dtype) + 0.5
    centres = start[:, None] * side + scale[:, None] * places
    centres = centres.clamp(0.5, side - 0.5)
    pixels = torch.arange(side, device=start.device, dtype=start.dtype) + 0.5
    distance = (pixels - centres[:, :, None]).abs() / scale.clamp(min=1.0)[:, None, None]
    weights = (1.0 - distance).clamp(min=0.0)
    return weights / weights.sum(dim=2, keepdim=True).clamp(min=TINY)


def crop(x: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Each picture's box, resized to `(B, C, size, size)`.

    Args:
        x: `(B, C, H, W)`.
        boxes: left, top, right, bottom `(B, 4)` in shares of the width and height.
    """
    left, top, right, bottom = boxes.unbind(dim=1)
    across = filter_weights(left, right, x.shape[3], size)
    down = filter_weights(top, bottom, x.shape[2], size)
    return down[:, None] @ x @ across[:, None].transpose(2, 3)


def resize(x: Tensor, size: int) -> Tensor:
    """Whole pictures `(B, C, H, W)` resized to `(B, C, size, size)`; the same picture where that is their size."""
    if x.shape[2] == size and x.shape[3] == size:
        return x
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=x.device, dtype=x.dtype)
    return crop(x, whole, size)
