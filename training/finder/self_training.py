"""Self-training: masks that a finder gives to photos on which its predictions for several views agree.

The views of a photo are the photo itself, its mirror image and several crops. A further check composites the item that
was found on another photo. If all of these agree, the photo's mask is the mean prediction, cut along the colours
(`training.data.item_finder.refine`), and the pixels on which the views disagree are left out of the loss. As in
Radosavovic et al.: Data Distillation, 2018, https://arxiv.org/abs/1712.04440, section 3, with the composites added.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from training.data.item_finder import refine
from training.finder.fit import TrustedPhotos, overlap
from training.finder.network import Finder
from training.layers.resample import crop

CROPS = ((0.0, 0.0, 0.85, 0.85), (0.15, 0.0, 1.0, 0.85), (0.0, 0.15, 0.85, 1.0), (0.15, 0.15, 1.0, 1.0))
AGREEMENT = 0.8  # minimum mean intersection over union (IoU) of the views with their mean
COMPOSED = 0.6  # minimum IoU of the masks before and after the item is composited on another photo
EXPECTED = 0.55  # minimum IoU that the finder itself predicts
AREA = (0.02, 0.85)  # share of the photo that the item covers
SPREAD = 0.15  # maximum standard deviation between views of the probability of a trusted pixel
UNSURE = (0.2, 0.8)  # pixels whose mean probability lies in between are trusted only if the cut agrees
BATCH = 64


class Views(NamedTuple):
    """Mean and standard deviation over the views of the probabilities `(B, 1, S, S)`; agreement and quality `(B,)`.

    Args:
        quality: mean predicted IoU.
    """

    mean: Tensor
    spread: Tensor
    agreement: Tensor
    quality: Tensor


@torch.inference_mode()
def agreed_photos(images: NDArray[np.uint8], finder: Finder) -> TrustedPhotos:
    """The photos on which the finder's views agree, with their masks.

    Args:
        images: `(N, 3, S, S)` uint8, of the finder's size.
    """
    kept: list[tuple[NDArray[np.uint8], ...]] = []
    for first in range(0, len(images), BATCH):
        batch = images[first : first + BATCH]
        x = torch.from_numpy(batch).float() / 255.0
        views = predict_views(finder, x)
        composed = _composed_agreement(finder, x, views.mean)
        share = views.mean.mean(dim=(1, 2, 3))
        is_kept = (views.agreement > AGREEMENT) & (composed > COMPOSED) & (views.quality > EXPECTED)
        is_kept &= (share > AREA[0]) & (share < AREA[1])
        for row in torch.nonzero(is_kept)[:, 0].tolist():
            kept.append((batch[row], *_mask_and_trust(batch[row], views, row)))
    if not kept:
        side = images.shape[-1]
        return TrustedPhotos(images[:0], np.zeros((0, side, side), np.uint8), np.zeros((0, side, side), np.uint8))
    return TrustedPhotos(*(np.stack(part) for part in zip(*kept, strict=True)))


def predict_views(finder: Finder, x: Tensor) -> Views:
    """The finder's predictions for several views of images `(B, 3, S, S)` in [0, 1]."""
    size = x.shape[-1]
    views, qualities = [], []
    for mirrored in (False, True):
        found = finder(x.flip(3) if mirrored else x)
        p = _full_size(found.mask, size)
        views.append(p.flip(3) if mirrored else p)
        qualities.append(torch.sigmoid(found.quality))
    for box in CROPS:
        part = crop(x, torch.tensor([box]), size)
        views.append(_placed(_full_size(finder(part).mask, size), box, size))
    stacked = torch.stack(views)
    mean = stacked.nanmean(dim=0)
    spread = torch.sqrt(torch.square(stacked - mean).nanmean(dim=0))
    agreements = [_overlap_where_seen(view, mean) for view in views]
    return Views(mean, spread, torch.stack(agreements).mean(dim=0), torch.stack(qualities).mean(dim=0))


def _full_size(logits: Tensor, size: int) -> Tensor:
    return torch.sigmoid(interpolate(logits, (size, size), mode="bilinear"))


def _placed(p: Tensor, box: tuple[float, float, float, float], size: int) -> Tensor:
    """Probabilities of a crop at its place in the image; NaN outside of the crop."""
    left, top, right, bottom = (round(edge * size) for edge in box)
    whole = torch.full_like(p, torch.nan)
    whole[:, :, top:bottom, left:right] = interpolate(p, (bottom - top, right - left), mode="bilinear")
    return whole


def _overlap_where_seen(view: Tensor, mean: Tensor) -> Tensor:
    seen = ~view.isnan()
    return overlap(torch.where(seen, view - 0.5, -1.0), torch.where(seen, mean, 0.0))


def _composed_agreement(finder: Finder, x: Tensor, mean: Tensor) -> Tensor:
    """IoU `(B,)` of the masks before and after the item is composited on another photo."""
    cover = (mean > 0.5).to(x.dtype)
    others = x.roll(1, dims=0).flip(2, 3)  # upside down, so that it shows no familiar item
    there = finder(cover * x + (1.0 - cover) * others)
    return overlap(_full_size(there.mask, x.shape[-1]) - 0.5, cover)


def _mask_and_trust(image: NDArray[np.uint8], views: Views, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    mean, spread = views.mean[row, 0].numpy(), views.spread[row, 0].numpy()
    cut = refine(np.ascontiguousarray(image.transpose(1, 2, 0)), mean.astype(np.float32))
    is_unsure = (spread > SPREAD) | ((mean > UNSURE[0]) & (mean < UNSURE[1]) & (cut != (mean > 0.5)))
    rim = cv2.morphologyEx(cut.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    trust = np.where(is_unsure, 0, np.where(rim, 128, 255)).astype(np.uint8)
    return cut.astype(np.uint8) * 255, trust
