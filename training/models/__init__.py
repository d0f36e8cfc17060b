"""The encoder families, one file each; `MODELS` maps the name of a family to its config and model classes."""

from __future__ import annotations

from training.models.ae import Ae, AeConfig
from training.models.backbone import Pooled, PooledConfig
from training.models.beta_vae import BetaVae, BetaVaeConfig
from training.models.cvae import Cvae, CvaeConfig
from training.models.delta_vae import DeltaVae, DeltaVaeConfig
from training.models.draw import Draw, DrawConfig
from training.models.families import FAMILIES, Family
from training.models.fusion import Fusion, FusionConfig
from training.models.glow import Glow, GlowConfig
from training.models.hog import Hog, HogConfig
from training.models.infovae import InfoVae, InfoVaeConfig
from training.models.item_first import ItemFirst, ItemFirstConfig
from training.models.made import Made, MadeConfig
from training.models.multiscale import Multiscale, MultiscaleConfig
from training.models.onnx import Onnx
from training.models.pca import Pca, PcaConfig
from training.models.pixel_cnn import PixelCnn, PixelCnnConfig
from training.models.pixel_cnn_pp import PixelCnnPp, PixelCnnPpConfig
from training.models.pixel_rnn import PixelRnn, PixelRnnConfig
from training.models.pixel_vae import PixelVae, PixelVaeConfig
from training.models.pixels import Pixels, PixelsConfig
from training.models.real_nvp import RealNvp, RealNvpConfig
from training.models.sketch_rnn import SketchRnn, SketchRnnConfig
from training.models.vae import Vae, VaeConfig
from training.models.vlae import Vlae, VlaeConfig
from training.models.vq_vae import VqVae, VqVaeConfig
from training.models.vq_vae_2 import VqVae2, VqVae2Config
from training.onnx.graph import OnnxConfig

MODELS = FAMILIES
MODELS |= {
    "ae": Family(AeConfig, Ae),
    "backbone": Family(PooledConfig, Pooled),
    "beta-vae": Family(BetaVaeConfig, BetaVae),
    "cvae": Family(CvaeConfig, Cvae),
    "delta-vae": Family(DeltaVaeConfig, DeltaVae),
    "draw": Family(DrawConfig, Draw),
    "fusion": Family(FusionConfig, Fusion),
    "glow": Family(GlowConfig, Glow),
    "hog": Family(HogConfig, Hog),
    "infovae": Family(InfoVaeConfig, InfoVae),
    "item-first": Family(ItemFirstConfig, ItemFirst),
    "made": Family(MadeConfig, Made),
    "multiscale": Family(MultiscaleConfig, Multiscale),
    "onnx": Family(OnnxConfig, Onnx),
    "pca": Family(PcaConfig, Pca),
    "pixel-cnn": Family(PixelCnnConfig, PixelCnn),
    "pixel-cnn++": Family(PixelCnnPpConfig, PixelCnnPp),
    "pixel-rnn": Family(PixelRnnConfig, PixelRnn),
    "pixel-vae": Family(PixelVaeConfig, PixelVae),
    "pixels": Family(PixelsConfig, Pixels),
    "real-nvp": Family(RealNvpConfig, RealNvp),
    "sketch-rnn": Family(SketchRnnConfig, SketchRnn, of_drawings=True),
    "vae": Family(VaeConfig, Vae),
    "vlae": Family(VlaeConfig, Vlae),
    "vq-vae": Family(VqVaeConfig, VqVae),
    "vq-vae-2": Family(VqVae2Config, VqVae2),
}
