"""Every family at a tiny size, another value for each of its settings, and images to fit them on."""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tests.training.onnx.graphs import load, token_graph
from training.encoder import Encoder
from training.models import MODELS
from training.preprocessing import Preprocessing
from training.protocols import (
    Batch,
    GenerativeModel,
    GradientModel,
    IncrementalModel,
    LikelihoodModel,
    VariationalModel,
)

SIZE = 16


CONV: dict[str, Any] = {"widths": (6, 8), "decoder_widths": (8, 6), "normalisation": "none"}


CODES: dict[str, Any] = {"codes": 8, "code_dim": 3, "pool": 2, "restart": 0.0, "prior_width": 6, "prior_layers": 0}


MIXTURE: dict[str, Any] = {"likelihood": "logistic-mixture", "mixtures": 2}


RASTER: dict[str, Any] = {**MIXTURE, "width": 6, "pool": 2}


GREY_VAE = {"family": "vae", "config": {**CONV, "latent_dim": 5, "size": 8, "channels": 1}}


FLOW: dict[str, Any] = {"levels": 2, "width": 6}


NETWORK: dict[str, Any] = {"width": 0.25, "depth": 0.5}


PIXEL_VAE: dict[str, Any] = {
    **CONV,
    "latent_dim": 5,
    "mixtures": 2,
    "receptive_field": 3,
    "map_width": 4,
    "pixel_width": 6,
    "head": 8,
}


TINY: dict[str, dict[str, Any]] = {
    "ae": {**CONV, "latent_dim": 5},
    "backbone": {"backbone": NETWORK},
    "beta-vae": {**CONV, "latent_dim": 5},
    "cvae": {**CONV, "latent_dim": 5, "classes": 3},
    "draw": {"steps": 3, "step_dim": 2, "hidden": 12, "read_size": 3, "write_size": 4},
    "delta-vae": {**PIXEL_VAE, "latent_dim": 8, "committed_rate": 2.0},
    "fusion": {"parts": (GREY_VAE, {"family": "pixels", "config": {"size": 16}}), "weights": (0.3, 0.7)},
    "glow": {**FLOW, "steps": 1},
    "hog": {},
    "infovae": {**PIXEL_VAE, "alpha": 0.5},
    "item-first": {
        "finder": {"size": 16, "widths": (4, 6), "depths": (0, 0), "decoder_widths": (4,), "normalisation": False},
        "encoder": {"family": "pixels", "config": {"size": 8, "channels": 3}},
        "doubt": 0.0,
        "trust": 1.0,
    },
    "made": {**MIXTURE, "channels": 3, "hidden": (24, 20)},
    "multiscale": {**MIXTURE, "base": 4, "width": 6, "layers": 0, "blocks": 1, "pool": 2},
    "onnx": {"output": "tokens", "pool": "cls"},
    "pca": {"components": 6, "oversample": 2},
    "pixel-cnn": {**RASTER, "kernel": 3, "dilations": (1,), "head": 8},
    "pixel-cnn++": {**RASTER, "scales": 2, "blocks": 1},
    "pixel-rnn": {**RASTER, "layers": 1, "kernel": 3, "head": 8},
    "pixel-vae": PIXEL_VAE,
    "pixels": {},
    "real-nvp": {**FLOW, "blocks": 0},
    "vae": {**CONV, "latent_dim": 5},
    "vlae": {**PIXEL_VAE, "flow_steps": 2, "flow_hidden": (7,)},
    "vq-vae": {**CONV, **CODES},
    "vq-vae-2": {**CONV, **CODES, "top_width": 6},
}


ALL = sorted(name for name, family in MODELS.items() if not family.of_drawings)


GENERATIVE = [name for name in ALL if issubclass(MODELS[name].model, GenerativeModel)]


JUDGING = [name for name in ALL if issubclass(MODELS[name].model, LikelihoodModel)]


VARIATIONAL = [name for name in ALL if issubclass(MODELS[name].model, VariationalModel)]
GRADIENT = [name for name in ALL if issubclass(MODELS[name].model, GradientModel)]


STAGED = [name for name in GRADIENT if "widths" in {field.name for field in fields(MODELS[name].config)}]


DENSITIES = [name for name in JUDGING if name not in GENERATIVE]  # autoregressive: no latent, no decoder


FLOWS = ["glow", "real-nvp"]


PIXEL_VAES = ["delta-vae", "infovae", "pixel-vae", "vlae"]  # a latent, and a decoder that draws pixel by pixel


PIXELWISE = [*DENSITIES, *PIXEL_VAES]  # at first they find all images equally strange


def make_images(count: int, *, size: int = SIZE, channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth 8-bit images that differ along a few directions, as photos do."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return torch.round(smooth * 255.0) / 255.0


def batch_of(model: Any, x: Tensor) -> Batch:
    """Images as targets of themselves, with labels by turns where a model is conditioned on them."""
    classes = getattr(model.config, "classes", None)
    return Batch(x, x, None, None if classes is None else torch.arange(len(x)) % classes)


def build(family: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = MODELS[family].config(**{"size": SIZE, **TINY[family], **changes})
    model = MODELS[family].model(config)
    if family == "onnx":  # whose weights are the graph
        load(model, token_graph(config.channels))
    return model


def fitted(family: str, **changes: Any) -> Any:
    """A model after its fit, or a few steps of it, on images of its own shape."""
    model = build(family, **changes)
    x = make_images(40, size=model.config.size, channels=model.config.channels)
    if isinstance(model, IncrementalModel):
        for batch in x.split(10):
            model.partial_fit(batch)
    if family in GRADIENT:
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-5)
        model.train()
        for step in range(2):
            optimiser.zero_grad()
            model.loss(batch_of(model, x), step).objective.backward()
            optimiser.step()
        model, _ = model.eval().finish([batch_of(model, x)])
    return model.eval()


def as_encoder(model: Any, family: str) -> Encoder:
    config = model.config
    return Encoder(
        model,
        family=family,
        config=asdict(config),
        preprocessing=Preprocessing(config.size, config.channels),
    )


@cache
def fitted_encoder(family: str) -> Encoder:
    """The tiny model of a family as an encoder, made once for all tests; read only."""
    return as_encoder(fitted(family), family)
