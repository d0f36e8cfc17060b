"""Every setting of every family has an effect; image sizes, exports and configurations."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.models.families import (
    ALL,
    DENSITIES,
    GRADIENT,
    GREY_VAE,
    JUDGING,
    NETWORK,
    PIXEL_VAES,
    STAGED,
    batch_of,
    build,
    fitted,
    fitted_encoder,
    make_images,
)
from training.models import MODELS
from training.onnx.export import check_agreement, to_onnx

# For every setting of every config, another value than the tiny one: something must come out differently. Settings of
# a network that the tiny one is not are changed together with the network itself.
OTHER_NETWORK: dict[str, Any] = {
    "size": 8,
    "channels": 1,
    "network": "mlp",
    "widths": (4, 8),
    "decoder_widths": (8, 4),
    "depth": 1,
    "decoder_depth": 1,
    "hidden": ((7, 9), {"network": "mlp"}),
    "activation": ("relu", {"network": "mlp"}),
    "normalisation": "batch",
    "likelihood": "logistic",
    "scale": 0.5,
}


OTHER_SEARCH: dict[str, Any] = {"search_dim": 3, "whitening": 1.0, "turn": "zca"}


ON_BACKBONE: dict[str, Any] = {"size": 32, "decoder_size": 16, "foreground": True, "backbone": {**NETWORK, "tuned": 1}}


OTHER_VAE: dict[str, Any] = {
    **OTHER_NETWORK,
    **OTHER_SEARCH,
    "latent_dim": 4,
    "beta": 3.0,
    "free_bits": 2.0,
    "warmup_steps": 10,
    "samples": 2,
    "foreground": True,
    "backbone": (NETWORK, {"size": 32}),
    "decoder_size": 8,
    "keep": (1e6, ON_BACKBONE),
    "item_share": (0.5, ON_BACKBONE),
    "item_dim": (2, {**ON_BACKBONE, "item_share": 0.5}),
}


OTHER_CODES: dict[str, Any] = {
    **{name: value for name, value in OTHER_NETWORK.items() if name not in ("network", "hidden", "activation")},
    **OTHER_SEARCH,
    "size": 32,
    "codes": 9,
    "code_dim": 4,
    "update": "loss",
    "decay": 0.5,
    "commitment": 1.0,
    "restart": 30.0,
    "pool": 1,
    "histogram_weight": 2.0,
    "prior": "pixel-cnn",
    "prior_width": (8, {"prior": "pixel-cnn"}),
    "prior_layers": (1, {"prior": "pixel-cnn"}),
    "classes": (3, {"prior": "pixel-cnn"}),
}


OTHER_DENSITY: dict[str, Any] = {
    **OTHER_SEARCH,
    "size": 8,
    "channels": 1,
    "likelihood": "bernoulli",
    "mixtures": 3,
    "classes": 3,
    "label_dropout": (1.0, {"classes": 3}),
}


OTHER_RASTER: dict[str, Any] = {
    **OTHER_DENSITY,
    "width": 8,
    "pool": 4,
}


OTHER_FLOW: dict[str, Any] = {**OTHER_SEARCH, "size": 8, "channels": 1, "levels": 1, "width": 8, "margin": 0.1}


OTHER_PIXEL_VAE: dict[str, Any] = {
    **{name: value for name, value in OTHER_VAE.items() if name != "scale"},
    "likelihood": "categorical",
    "mixtures": 3,
    "receptive_field": 1,
    "map_width": 3,
    "pixel_width": 4,
    "head": 6,
}


REFUSED: dict[str, tuple[str, ...]] = {  # settings of other families that have one possible value
    "delta-vae": (
        *("scale", "network", "hidden", "activation", "foreground", "backbone", "decoder_size", "keep"),
        *("item_share", "item_dim"),
    ),
    "infovae": ("scale", "beta"),
    "item-first": ("channels", "spare_plain"),
    "pixel-vae": ("scale",),
    "vlae": ("scale",),
}


OTHER: dict[str, dict[str, Any]] = {
    "ae": {**OTHER_NETWORK, **OTHER_SEARCH, "latent_dim": 4, "noise": 0.3},
    "backbone": {
        "size": 32,
        "channels": 1,
        "backbone": {"width": 0.5, "depth": 0.5},
        "search_dim": 3,
        "whitening": (1.0, {"search_dim": 3}),
    },
    "beta-vae": OTHER_VAE,
    "cvae": {**OTHER_VAE, "classes": 4, "label_in_encoder": False, "label_dropout": 1.0},
    "draw": {
        **OTHER_SEARCH,
        "size": 8,
        "channels": 1,
        "steps": 2,
        "step_dim": 3,
        "hidden": 8,
        "attention": False,
        "read_size": 4,
        "write_size": 3,
        "likelihood": "logistic",
        "scale": 0.5,
    },
    "delta-vae": {
        **{name: value for name, value in OTHER_PIXEL_VAE.items() if name not in REFUSED["delta-vae"]},
        "committed_rate": 4.0,
    },
    "fusion": {
        "size": 24,
        "channels": (1, {"parts": (GREY_VAE, GREY_VAE)}),
        "parts": [GREY_VAE, {"family": "pixels", "config": {"size": 8}}],  # a tuple would be a value and its base
        "weights": (0.5, 0.5),
    },
    "glow": {**OTHER_FLOW, "permutation": "reverse", "steps": 2},
    "hog": {"size": 24, "channels": 1, "orientations": 5, "cell": 4, "block": 1},
    "infovae": {
        **{name: value for name, value in OTHER_PIXEL_VAE.items() if name not in REFUSED["infovae"]},
        "alpha": 0.0,
        "lambda_": 10.0,
        "kernel_width": 1.0,
    },
    "item-first": {
        "size": 32,
        "finder": {"size": 16, "widths": (4, 8), "depths": (0, 0), "decoder_widths": (4,), "normalisation": False},
        "encoder": {"family": "pixels", "config": {"size": 16, "channels": 3}},
        "margin": 0.5,
        "doubt": 0.4,
        "trust": 0.6,
        "paint": 0.2,
        "passes": 2,
        "beside": 0.5,
    },
    "made": {**OTHER_DENSITY, "hidden": (24,), "masks": 2, "random_order": True, "direct": False},
    "multiscale": {**OTHER_DENSITY, "base": 8, "width": 8, "layers": 1, "blocks": 2, "pool": 4},
    "onnx": {
        "size": 8,
        "channels": 1,
        "mean": (0.4, 0.5, 0.6),
        "std": (0.5,),
        "output": "squares",
        "pool": "mean",
        "metric": "l2",
    },
    "pca": {"size": 8, "channels": 1, "components": 4, "oversample": 1, "whitening": 1.0},
    "pixel-cnn": {**OTHER_RASTER, "architecture": "plain", "kernel": 5, "dilations": (2,), "head": 6},
    "pixel-cnn++": {**OTHER_RASTER, "scales": 1, "blocks": 2, "dropout": 0.5, "weight_norm": True},
    "pixel-rnn": {**OTHER_RASTER, "recurrence": "row", "layers": 2, "kernel": 5, "head": 6},
    "pixel-vae": OTHER_PIXEL_VAE,
    "pixels": {"size": 8, "channels": 1},
    "real-nvp": {**OTHER_FLOW, "permutation": "1x1", "blocks": 1},
    "vae": OTHER_VAE,
    "vlae": {**OTHER_PIXEL_VAE, "flow_steps": 1, "flow_hidden": (9, 8)},
    "vq-vae": OTHER_CODES,
    "vq-vae-2": {**OTHER_CODES, "top_width": 4, "search_levels": "top"},
}


MLP_ONLY = ("network", "hidden", "activation")  # families of code maps have `conv` alone


# An export takes seconds, and these have their layers in common with a family that is exported in the default run.
SLOW_TO_EXPORT = (
    *("beta-vae", "cvae", "infovae", "item-first", "multiscale", "pixel-cnn", "pixel-cnn++", "pixel-vae", "vlae"),
    "vq-vae-2",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW_TO_EXPORT else ())
        for name in ALL
        if getattr(MODELS[name].model, "is_exportable", False)
    ],
)
def test_the_onnx_graph_gives_the_vectors_of_torch(family: str) -> None:
    encoder = fitted_encoder(family)
    check_agreement(encoder, to_onnx(encoder))


@pytest.mark.parametrize("family", STAGED)
@pytest.mark.parametrize(("size", "widths"), [(28, (4, 6)), (32, (4, 6)), (64, (4, 6, 6)), (128, (4, 4, 6, 6))])
def test_the_image_size_and_grey_are_settings(family: str, size: int, widths: tuple[int, ...]) -> None:
    changes = {"size": size, "channels": 1, "widths": widths, "decoder_widths": widths[::-1], "depth": 1}
    if size == 28 and family == "vq-vae":
        changes["pool"] = 7
    if family == "vq-vae-2":
        changes |= {"widths": widths[1:], "decoder_widths": widths[1:][::-1]}
        changes["pool"] = 7 if size == 28 else 2
    if family == "delta-vae":
        changes["latent_dim"] = 2 * size // 2 ** len(widths)
    model = build(family, **changes).eval()
    x = make_images(2, size=size, channels=1)
    if family not in PIXEL_VAES or size <= 32:  # they draw pixel by pixel
        assert model.reconstruct(x).shape == x.shape
    assert model.embed(x).shape == (2, model.dim)


@pytest.mark.parametrize("family", DENSITIES)
@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_image_size_and_grey_are_settings_of_densities(family: str, size: int) -> None:
    model = build(family, size=size, channels=1, **({"base": size // 4} if family == "multiscale" else {})).eval()
    x = make_images(2, size=size, channels=1)
    assert model.log_likelihood(x).nats.shape == (2,)
    assert model.embed(x).shape == (2, model.dim)


SETTINGS = [
    (family, field.name)
    for family in ALL
    for field in fields(MODELS[family].config)
    if not (family.startswith("vq") and field.name in MLP_ONLY) and field.name not in REFUSED.get(family, ())
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "setting"), SETTINGS)
def test_every_setting_has_an_effect(family: str, setting: str) -> None:
    other = OTHER[family][setting]
    value, base = other if isinstance(other, tuple) and isinstance(other[-1], dict) else (other, {})
    assert not torch.equal(_base_outcome(family, json.dumps(base)), _outcome(family, {**base, setting: value}))


@pytest.mark.parametrize("family", ["vq-vae", "vq-vae-2"])
def test_code_maps_need_convolutions(family: str) -> None:
    with pytest.raises(ValueError, match="network must be conv, as codes need a feature map, not 'mlp'"):
        build(family, network="mlp")


@cache
def _base_outcome(family: str, changes: str) -> Tensor:
    """As `_outcome`, once for all settings that start from the same changes, given as JSON."""
    return _outcome(family, json.loads(changes))


def _outcome(family: str, changes: dict[str, Any]) -> Tensor:
    """Search vectors after a fit, and for models with a gradient the objective and what two steps made of it."""
    model = fitted(family, **changes)
    x = make_images(6, size=model.config.size, channels=model.config.channels, seed=3)
    parts = [model.embed(x).detach().flatten(), torch.tensor([float(model.metric == "l2")])]
    if family in JUDGING:
        parts.append(model.log_likelihood(x).nats.detach())
    if family in GRADIENT:
        trained = build(family, **changes).train()
        for step in range(2):
            torch.manual_seed(1)
            parts.append(trained.loss(batch_of(trained, x), step).objective.detach()[None])
    return torch.cat(parts)


@pytest.mark.parametrize("family", ALL)
def test_a_config_is_frozen_and_refuses_an_image_size_out_of_range(family: str) -> None:
    config = MODELS[family].config()
    with pytest.raises(FrozenInstanceError):
        config.size = 32
    with pytest.raises(ValueError, match="size must be between 8 and 1024 pixels, not 4"):
        MODELS[family].config(size=4)
    with pytest.raises(ValueError, match="channels must be 1 or 3, not 2"):
        MODELS[family].config(channels=2)
