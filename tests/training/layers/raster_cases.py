"""Small autoregressive models in double precision, one for each way of looking at an image."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor

from training.models.pixel_cnn import PixelCnn, PixelCnnConfig
from training.models.pixel_cnn_pp import PixelCnnPp, PixelCnnPpConfig
from training.models.pixel_rnn import PixelRnn, PixelRnnConfig

SIDE = 8


SMALL: dict[str, Any] = {"size": SIDE, "width": 12, "pool": 2}


CNN: dict[str, Any] = {**SMALL, "kernel": 3, "dilations": (1, 2), "head": 24}


RNN: dict[str, Any] = {**SMALL, "kernel": 3, "layers": 2, "head": 24}


CASES: dict[str, tuple[Any, Any]] = {
    "gated, channels in turn": (PixelCnn, PixelCnnConfig(**CNN, likelihood="categorical")),
    "gated, whole pixels": (PixelCnn, PixelCnnConfig(**CNN, likelihood="logistic-mixture", mixtures=2, classes=3)),
    "plain, channels in turn": (
        PixelCnn, PixelCnnConfig(**{**CNN, "kernel": 5}, architecture="plain", likelihood="categorical"),
    ),
    "plus plus": (PixelCnnPp, PixelCnnPpConfig(**SMALL, scales=3, blocks=1, mixtures=2, classes=3)),
    "row lstm": (PixelRnn, PixelRnnConfig(**RNN, recurrence="row", classes=3)),
    "diagonal bilstm": (PixelRnn, PixelRnnConfig(**RNN, recurrence="diagonal")),
}  # fmt: skip


def build(case: str) -> Any:
    torch.manual_seed(0)
    family, config = CASES[case]
    model = family(config).double().eval()
    # Distributions that hardly differ from pixel to pixel would hide a mistake.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight"):
                parameter.mul_(1.7)
    return model


def binary_images(height: int, width: int) -> Tensor:
    """All binary images `(2^(height * width), 1, height, width)`."""
    values = torch.tensor(list(product((0.0, 1.0), repeat=height * width)), dtype=torch.float64)
    return values.reshape(-1, 1, height, width)
