"""Where in a photo an encoder looks, told from outside: hide a part, and see how far the search vector moves.

Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, 2014, section 4.2 (occlusion sensitivity),
https://arxiv.org/abs/1311.2901.

Differs from the paper: what moves is the vector, not a class's probability, and a part is hidden by a strong blur of
the photo, not by grey: a plain background stays as it is, so that hiding it is nothing new.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from training.encoder import Encoder

PATCHES = 8  # along a side
BLUR = 0.15  # standard deviation, in sides


def occlusion(encoder: Encoder, pixels: NDArray[np.uint8], patches: int = PATCHES) -> NDArray[np.float32]:
    """How far the vectors of prepared photos `(N, C, S, S)` move when a part is hidden, `(N, patches, patches)`.

    Raises:
        ValueError: the photos have fewer pixels along a side than there are patches.
    """
    side = pixels.shape[-1]
    if not 1 <= patches <= side:
        raise ValueError(f"patches must be between 1 and the side of the photos, {side}, not {patches}")
    edges = np.linspace(0, side, patches + 1).round().astype(int)
    moved = np.zeros((len(pixels), patches, patches), np.float32)
    for number, photo in enumerate(pixels):
        soft = cv2.GaussianBlur(photo.transpose(1, 2, 0), (0, 0), BLUR * side).reshape(side, side, -1)
        hidden = np.repeat(photo[None], patches * patches + 1, axis=0)  # the last stays whole
        for place in range(patches * patches):
            down, across = divmod(place, patches)
            rows, columns = slice(*edges[down : down + 2]), slice(*edges[across : across + 2])
            hidden[place, :, rows, columns] = soft[rows, columns].transpose(2, 0, 1)
        vectors = encoder.encode(torch.from_numpy(hidden)).numpy()
        moved[number] = np.linalg.norm(vectors[:-1] - vectors[-1], axis=1).reshape(patches, patches)
    return moved
