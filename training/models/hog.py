"""Baseline: histograms of oriented gradients.

Dalal, Triggs: Histograms of Oriented Gradients for Human Detection, 2005, https://doi.org/10.1109/CVPR.2005.177.
Each cell of 8 x 8 pixels has a histogram of 9 unsigned orientations, weighted by gradient magnitude; each block of
2 x 2 cells is normalised (L2-Hys: L2, clipped at 0.2, L2 again). In colour images, each pixel uses the channel with the
largest gradient. Computed by scikit-image.

Differs from the paper: square windows instead of 64 x 128; votes are not interpolated between cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.layers.checks import check_at_least, check_image
from training.reference import Metric


@dataclass(frozen=True)
class HogConfig:
    """Geometry of the histograms; the defaults are the paper's."""

    size: int = 64
    channels: int = 3
    orientations: int = 9
    cell: int = 8
    block: int = 2

    def __post_init__(self) -> None:
        check_image(self.size, self.channels)
        for name in ("orientations", "cell", "block"):
            check_at_least(name, getattr(self, name), 1)
        if self.size // self.cell < self.block:
            raise ValueError(f"block must be at most {self.size // self.cell} cells, not {self.block}")


class Hog(nn.Module):
    """Images `(B, C, S, S)` in [0, 1] to vectors `(B, blocks^2 block^2 orientations)`; has no weights."""

    metric: Metric = "cosine"
    is_exportable = False  # scikit-image computes it

    def __init__(self, config: HogConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def dim(self) -> int:
        config = self.config
        blocks = config.size // config.cell - config.block + 1
        return blocks**2 * config.block**2 * config.orientations

    def embed(self, x: Tensor) -> Tensor:
        from skimage.feature import hog

        config = self.config
        images = x.detach().cpu().permute(0, 2, 3, 1).numpy()
        vectors = np.empty((len(images), self.dim), dtype=np.float32)
        for row, image in enumerate(images):
            vectors[row] = hog(
                image,
                orientations=config.orientations,
                pixels_per_cell=(config.cell, config.cell),
                cells_per_block=(config.block, config.block),
                block_norm="L2-Hys",
                channel_axis=-1,
            )
        return torch.from_numpy(vectors).to(x.device)
