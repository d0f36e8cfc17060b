"""Contexts for computing latents of a model during training without side effects on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from training.layers.quantise import VectorQuantiser


@contextmanager
def in_use(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients: running statistics are used and not updated."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


@contextmanager
def untracked(model: nn.Module) -> Iterator[None]:
    """The current mode with gradients, but running statistics and codebooks are not updated."""
    learning = [module for module in model.modules() if isinstance(module, VectorQuantiser) and module.training]
    tracking = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats and module.training
    ]
    for module in tracking:
        module.track_running_stats = False
    for quantiser in learning:
        quantiser.training = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
        for quantiser in learning:
            quantiser.training = True
