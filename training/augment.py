"""Random changes to a batch of training images, which are made on the device that trains."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def augment_batch(x: Tensor, *, flip: bool, crop: float) -> Tensor:
    """Mirror and crop each image of a batch `(B, C, H, W)` in [0, 1] by draws from the global generator.

    Args:
        flip: mirror each image left to right with probability one half.
        crop: least share of the side that is kept; the crop is resized to the full size. 1 keeps all.

    Returns:
        Images of the same shape whose values are multiples of 1/255 again, as 8-bit likelihoods need.
    """
    if not flip and crop >= 1.0:
        return x
    count = len(x)
    mirror = torch.ones(count, device=x.device)
    if flip:
        mirror = torch.where(torch.rand(count, device=x.device) < 0.5, -mirror, mirror)
    if crop >= 1.0:
        return torch.where(mirror[:, None, None, None] < 0, x.flip(3), x)
    keep = crop + (1.0 - crop) * torch.rand(count, device=x.device)
    shift = (2.0 * torch.rand(2, count, device=x.device) - 1.0) * (1.0 - keep)
    zero = torch.zeros_like(keep)
    rows = torch.stack([keep * mirror, zero, shift[0], zero, keep, shift[1]], dim=1)
    grid = torch.nn.functional.affine_grid(rows.reshape(count, 2, 3), list(x.shape), align_corners=False)
    cropped = grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return torch.round(cropped * 255.0) / 255.0
