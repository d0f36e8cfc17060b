"""How a model in training is asked for latents besides its step, without a trace of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from training.layers.quantise import VectorQuantiser


@contextmanager
def in_use(model: nn.Module) -> Iterator[None]:
    """The model as it is used: without gradient, normalised by its running statistics, which stay as they are."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


@contextmanager
def untracked(model: nn.Module) -> Iterator[None]:
    """The model in its own mode and with its gradient, while running statistics and codebooks stay as they are."""
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
