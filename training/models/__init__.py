"""The families of encoders, one file each; `MODELS` maps a family's name to its config and its model."""

from __future__ import annotations

from typing import Any, NamedTuple

from training.models.hog import Hog, HogConfig
from training.models.pca import Pca, PcaConfig
from training.models.pixels import Pixels, PixelsConfig
from training.models.vae import Vae, VaeConfig


class Family(NamedTuple):
    """A frozen dataclass config, and the `torch.nn.Module` that is built from it alone."""

    config: type[Any]
    model: type[Any]


MODELS: dict[str, Family] = {
    "hog": Family(HogConfig, Hog),
    "pca": Family(PcaConfig, Pca),
    "pixels": Family(PixelsConfig, Pixels),
    "vae": Family(VaeConfig, Vae),
}
