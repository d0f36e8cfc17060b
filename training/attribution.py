"""Occlusion sensitivity of an encoder: how far the search vector moves when a part of the photo is hidden.

Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, 2014, section 4.2 (occlusion sensitivity),
https://arxiv.org/abs/1311.2901.

Differs from the paper: measures the change of the vector instead of a class probability, and hides a part by a strong
blur instead of grey, which leaves a plain background unchanged.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from training.encoder import Encoder

PATCHES = 8  # per side
BLUR = 0.15  # standard deviation, as a fraction of the side


def occlusion(encoder: Encoder, pixels: NDArray[np.uint8], patches: int = PATCHES) -> NDArray[np.float32]:
    """Distance that the vectors of prepared photos `(N, C, S, S)` move per hidden patch, `(N, patches, patches)`.

    Raises:
        ValueError: there are more patches per side than pixels.
    """
    side = pixels.shape[-1]
    if not 1 <= patches <= side:
        raise ValueError(f"patches must be between 1 and the side of the photos, {side}, not {patches}")
    edges = np.linspace(0, side, patches + 1).round().astype(int)
    moved = np.zeros((len(pixels), patches, patches), np.float32)
    for number, photo in enumerate(pixels):
        soft = cv2.GaussianBlur(photo.transpose(1, 2, 0), (0, 0), BLUR * side).reshape(side, side, -1)
        hidden = np.repeat(photo[None], patches * patches + 1, axis=0)  # the last one stays unchanged
        for patch in range(patches * patches):
            down, across = divmod(patch, patches)
            rows, columns = slice(*edges[down : down + 2]), slice(*edges[across : across + 2])
            hidden[patch, :, rows, columns] = soft[rows, columns].transpose(2, 0, 1)
        vectors = encoder.encode(torch.from_numpy(hidden)).numpy()
        moved[number] = np.linalg.norm(vectors[:-1] - vectors[-1], axis=1).reshape(patches, patches)
    return moved
