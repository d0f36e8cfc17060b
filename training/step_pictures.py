"""Pictures of a model that draws in steps: its canvas, and the windows that it reads and writes through, over time."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from training.protocols import StepwiseModel

SIDE = 96  # smallest side of a picture, in pixels
READ, WRITTEN = (40, 200, 80), (235, 60, 50)  # colours of the windows
THICKEST = 6  # line, in pixels
Pixels = NDArray[np.uint8]


@torch.no_grad()
def step_rows(model: StepwiseModel, x: Tensor, generator: torch.Generator) -> list[dict[str, Tensor]]:
    """The rows of each step, pictures `(B, 3, H, W)` in [0, 1] by their label: images, their canvas, and samples.

    Images show the window that is read, canvas and samples the one that is written.

    The line of a window is as thick as the blur of its filters (a standard deviation), as in figure 5 of Gregor et al.
    2015, https://arxiv.org/abs/1502.04623.

    Args:
        x: images `(B, C, S, S)` in [0, 1].
    """
    steps = zip(model.reconstruct_in_steps(x), model.sample_in_steps(len(x), generator), strict=True)
    return [
        {
            "image": framed(x, drawn.read, READ),
            "canvas": framed(drawn.picture, drawn.written, WRITTEN),
            "sample": framed(sample.picture, sample.written, WRITTEN),
        }
        for drawn, sample in steps
    ]


def framed(images: Tensor, windows: Tensor | None, colour: tuple[int, int, int]) -> Tensor:
    """Images `(B, C, S, S)` enlarged in whole pixels `(B, 3, H, H)`, with the outlines of windows `(B, 5)` on them."""
    zoom = max(1, -(-SIDE // images.shape[-1]))
    large = images.expand(-1, 3, -1, -1).repeat_interleave(zoom, dim=2).repeat_interleave(zoom, dim=3)
    if windows is None:
        return large.cpu()
    pixels = (large * 255.0).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    outlined = [_outlined(each, zoom * window, colour) for each, window in zip(pixels, windows.cpu(), strict=True)]
    return torch.from_numpy(np.stack(outlined)).permute(0, 3, 1, 2).float() / 255.0


def _outlined(pixels: Pixels, window: Tensor, colour: tuple[int, int, int]) -> Pixels:
    """Pixels `(H, W, 3)` with the outline of a window, given in these pixels."""
    picture = Image.fromarray(pixels)
    left, top, right, bottom, blur = window.tolist()
    width = min(THICKEST, max(1, round(blur)))
    ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), outline=colour, width=width)
    return np.asarray(picture)
