"""Train a finder on scenes composed during training and, optionally, on photos with trusted masks.

The objective is averaged over images and has three terms: the cross-entropy of the cells; the soft Jaccard distance
1 - |P M| / |P + M - P M| of each image, in which small items count as much as large ones (Rahman, Wang: Optimizing
Intersection-Over-Union in Deep Neural Networks for Image Segmentation, 2016,
https://doi.org/10.1007/978-3-319-50835-1_22); and the cross-entropy between the predicted quality and the intersection
over union (IoU) of the mask with the true one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, binary_cross_entropy_with_logits

from training.finder.network import Finder, FinderConfig, FinderOutput
from training.finder.scenes import SceneMaker
from training.fitting.augment import augment_batch
from training.recipes import PRECISIONS
from training.recipes.schema import Augment

PHOTO_CHANGES = Augment(flip=True, rotate=15, scale=0.35, translate=0.15, brightness=0.25, contrast=0.25, hue=0.02)


@dataclass(frozen=True)
class FinderFit:
    """Training settings of a finder.

    Args:
        steps: optimiser steps; the learning rate rises during the first 5 % and then falls along a cosine.
        photo_share: share of photos in each batch, if there are photos.
        ema: decay of the moving average of the weights, which becomes the finder.
        precision: 32, or bf16-mixed for bfloat16 in the network, which is twice as fast on processors that support it.
        max_minutes: time limit; the learning rate then falls earlier. None for no limit.
    """

    steps: int = 8000
    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 1e-4
    photo_share: float = 0.25
    ema: float = 0.998
    seed: int = 0
    max_minutes: float | None = None
    precision: str = "32"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2:
            raise ValueError("training needs at least 1 step and a batch size of at least 2")
        if not 0 <= self.photo_share < 1:
            raise ValueError(f"photo_share must be at least 0 and below 1, not {self.photo_share}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if not 0 < self.ema < 1:
            raise ValueError(f"ema must be between 0 and 1, not {self.ema}")


class TrustedPhotos(NamedTuple):
    """Photos `(N, 3, S, S)`, masks `(N, S, S)` and the trust in each pixel of a mask `(N, S, S)`, all uint8."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    trust: NDArray[np.uint8]


def fit_finder(
    config: FinderConfig,
    settings: FinderFit,
    scenes: SceneMaker,
    photos: TrustedPhotos | None = None,
    *,
    start: Finder | None = None,
    report: Callable[[int, float], None] = lambda step, objective: None,
) -> tuple[Finder, dict[str, float]]:
    """Train a finder; returns the network with averaged weights, and figures of the run.

    Args:
        start: a network to continue from, with its normalisation layers.
        report: called after each step with its number and objective.
    """
    torch.manual_seed(settings.seed)
    network = (start or Finder(config)).train().to(memory_format=torch.channels_last)
    average = deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    started, step, share = time.monotonic(), 0, 0.0
    flushes = torch.set_flush_denormal(True)
    try:
        while share < 1.0:
            for group in optimiser.param_groups:
                group["lr"] = settings.lr * _rate(share)
            loss = _step(network, optimiser, settings, scenes, photos)
            _follow(average, network, min(settings.ema, (1 + step) / (10 + step)))
            step += 1
            share = max(step / settings.steps, _spent(settings, started))
            report(step, loss)
    finally:
        torch.set_flush_denormal(False)
    run = {"steps": step, "pictures": step * settings.batch_size, "fit_seconds": round(time.monotonic() - started, 1),
           "flushes_denormals": float(flushes)}  # fmt: skip
    return average, run


def _step(
    network: Finder,
    optimiser: torch.optim.Optimizer,
    settings: FinderFit,
    scenes: SceneMaker,
    photos: TrustedPhotos | None,
) -> float:
    real = round(settings.photo_share * settings.batch_size) if photos is not None else 0
    made = scenes(settings.batch_size - real)
    x, mask, trust = made.images, made.masks, torch.ones_like(made.masks)
    if photos is not None and real:
        x, mask, trust = (
            torch.cat(pair) for pair in zip((x, mask, trust), _draw(photos, real, scenes.size), strict=True)
        )
    with torch.autocast(x.device.type, torch.bfloat16, enabled=settings.precision == "bf16-mixed"):
        found = network(x)
    loss = objective(FinderOutput(found.mask.float(), found.quality.float()), mask, trust)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    return float(loss.detach())


def objective(found: FinderOutput, mask: Tensor, trust: Tensor) -> Tensor:
    """The objective of a batch, a scalar.

    Args:
        mask: share of each pixel that the item covers `(B, 1, S, S)`.
        trust: weight of each pixel `(B, 1, S, S)`.
    """
    side = found.mask.shape[-1]
    cells, weight = adaptive_avg_pool2d(mask, side), adaptive_avg_pool2d(trust, side)
    nats = binary_cross_entropy_with_logits(found.mask, cells, weight)
    p = torch.sigmoid(found.mask)
    both = (weight * p * cells).sum(dim=(1, 2, 3))
    jaccard = (both + 0.5) / ((weight * (p + cells - p * cells)).sum(dim=(1, 2, 3)) + 0.5)
    quality = binary_cross_entropy_with_logits(found.quality, overlap(found.mask.detach(), cells, weight))
    return nats + (1.0 - jaccard).mean() + 0.2 * quality


def overlap(logits: Tensor, cells: Tensor, weight: Tensor | None = None) -> Tensor:
    """IoU `(B,)` of masks, given as logits `(B, 1, h, w)`, with true masks in [0, 1]; 1 if both are empty."""
    guessed, true = logits > 0, cells > 0.5
    counted = torch.ones_like(cells) if weight is None else weight
    both = (counted * (guessed & true)).sum(dim=(1, 2, 3))
    either = (counted * (guessed | true)).sum(dim=(1, 2, 3))
    return torch.where(either > 0, both / either.clamp(min=1e-6), 1.0)


def _draw(photos: TrustedPhotos, count: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Augmented photos; pixels from beyond their edges are not trusted."""
    rows = torch.randint(len(photos.images), (count,)).numpy()
    x, mask, trust = (torch.from_numpy(part[rows]).float() / 255.0 for part in photos)
    if x.shape[-1] != size:
        raise ValueError(f"photos have a side of {x.shape[-1]} pixels, but scenes one of {size}; resize the photos")
    moved, both = augment_batch(x, PHOTO_CHANGES, torch.stack([mask, trust], dim=1))
    return moved, both[:, :1], both[:, 1:]


def _follow(average: Finder, network: Finder, decay: float) -> None:
    with torch.no_grad():
        for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1.0 - decay)
            else:
                kept.copy_(new)


def _rate(share: float) -> float:
    """The learning rate relative to its maximum, when a share of the training is done."""
    return share / 0.05 + 0.01 if share < 0.05 else 0.5 * (1.0 + math.cos(math.pi * (share - 0.05) / 0.95)) + 0.005


def _spent(settings: FinderFit, started: float) -> float:
    if settings.max_minutes is None:
        return 0.0
    return (time.monotonic() - started) / (60.0 * settings.max_minutes)
