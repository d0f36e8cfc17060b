"""The families of encoders, one file each; `MODELS` maps a family's name to its config and its model."""

from __future__ import annotations

from typing import Any, NamedTuple

from training.models.ae import Ae, AeConfig
from training.models.beta_vae import BetaVae, BetaVaeConfig
from training.models.cvae import Cvae, CvaeConfig
from training.models.hog import Hog, HogConfig
from training.models.pca import Pca, PcaConfig
from training.models.pixels import Pixels, PixelsConfig
from training.models.vae import Vae, VaeConfig
from training.models.vq_vae import VqVae, VqVaeConfig
from training.models.vq_vae_2 import VqVae2, VqVae2Config


class Family(NamedTuple):
    """A frozen dataclass config, and the `torch.nn.Module` that is built from it alone."""

    config: type[Any]
    model: type[Any]


MODELS: dict[str, Family] = {
    "ae": Family(AeConfig, Ae),
    "beta-vae": Family(BetaVaeConfig, BetaVae),
    "cvae": Family(CvaeConfig, Cvae),
    "hog": Family(HogConfig, Hog),
    "pca": Family(PcaConfig, Pca),
    "pixels": Family(PixelsConfig, Pixels),
    "vae": Family(VaeConfig, Vae),
    "vq-vae": Family(VqVaeConfig, VqVae),
    "vq-vae-2": Family(VqVae2Config, VqVae2),
}
