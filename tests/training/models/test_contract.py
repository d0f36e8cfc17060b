"""What every family promises, checked on all of them alike."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.onnx.graphs import load, token_graph
from training.encoder import Encoder, load_encoder
from training.errors import EncoderError
from training.models import MODELS
from training.onnx.export import check_agreement, to_onnx
from training.preprocessing import Preprocessing
from training.protocols import (
    Batch,
    CompletingModel,
    GenerativeModel,
    GradientModel,
    IncrementalModel,
    LikelihoodModel,
    SamplingModel,
    VariationalModel,
)

SIZE = 16
CONV: dict[str, Any] = {"widths": (6, 8), "decoder_widths": (8, 6), "normalisation": "none"}
CODES: dict[str, Any] = {"codes": 8, "code_dim": 3, "pool": 2, "restart": 0.0, "prior_width": 6, "prior_layers": 0}
MIXTURE: dict[str, Any] = {"likelihood": "logistic-mixture", "mixtures": 2}
RASTER: dict[str, Any] = {**MIXTURE, "width": 6, "pool": 2}
GREY_VAE = {"family": "vae", "config": {**CONV, "latent_dim": 5, "size": 8, "channels": 1}}
NETWORK: dict[str, Any] = {"width": 0.25, "depth": 0.5}
TINY: dict[str, dict[str, Any]] = {
    "ae": {**CONV, "latent_dim": 5},
    "backbone": {"backbone": NETWORK},
    "beta-vae": {**CONV, "latent_dim": 5},
    "cvae": {**CONV, "latent_dim": 5, "classes": 3},
    "fusion": {"parts": (GREY_VAE, {"family": "pixels", "config": {"size": 16}}), "weights": (0.3, 0.7)},
    "hog": {},
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
    "pixel-vae": {
        **CONV,
        "latent_dim": 5,
        "mixtures": 2,
        "receptive_field": 3,
        "map_width": 4,
        "pixel_width": 6,
        "head": 8,
    },
    "pixels": {},
    "vae": {**CONV, "latent_dim": 5},
    "vq-vae": {**CONV, **CODES},
    "vq-vae-2": {**CONV, **CODES, "top_width": 6},
}
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
OTHER_DENSITY: dict[str, Any] = {**OTHER_SEARCH, "size": 8, "channels": 1, "likelihood": "bernoulli", "mixtures": 3}
OTHER_RASTER: dict[str, Any] = {
    **OTHER_DENSITY,
    "width": 8,
    "classes": 3,
    "label_dropout": (1.0, {"classes": 3}),
    "pool": 4,
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
    "fusion": {
        "size": 24,
        "channels": (1, {"parts": (GREY_VAE, GREY_VAE)}),
        "parts": [GREY_VAE, {"family": "pixels", "config": {"size": 8}}],  # a tuple would be a value and its base
        "weights": (0.5, 0.5),
    },
    "hog": {"size": 24, "channels": 1, "orientations": 5, "cell": 4, "block": 1},
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
    "pixel-cnn++": {**OTHER_RASTER, "scales": 1, "blocks": 2, "dropout": 0.5},
    "pixel-rnn": {**OTHER_RASTER, "recurrence": "row", "layers": 2, "kernel": 5, "head": 6},
    "pixel-vae": {
        **{name: value for name, value in OTHER_VAE.items() if name != "scale"},
        "likelihood": "categorical",
        "mixtures": 3,
        "receptive_field": 1,
        "map_width": 3,
        "pixel_width": 4,
        "head": 6,
    },
    "pixels": {"size": 8, "channels": 1},
    "vae": OTHER_VAE,
    "vq-vae": OTHER_CODES,
    "vq-vae-2": {**OTHER_CODES, "top_width": 4},
}
MLP_ONLY = ("network", "hidden", "activation")  # families of code maps have `conv` alone
ALL = sorted(MODELS)
SAMPLING = [name for name in ALL if issubclass(MODELS[name].model, SamplingModel)]
COMPLETING = [name for name in ALL if issubclass(MODELS[name].model, CompletingModel)]
GENERATIVE = [name for name in ALL if issubclass(MODELS[name].model, GenerativeModel)]
JUDGING = [name for name in ALL if issubclass(MODELS[name].model, LikelihoodModel)]
VARIATIONAL = [name for name in ALL if issubclass(MODELS[name].model, VariationalModel)]
GRADIENT = [name for name in ALL if issubclass(MODELS[name].model, GradientModel)]
STAGED = [name for name in GRADIENT if "widths" in {field.name for field in fields(MODELS[name].config)}]
DENSITIES = [name for name in JUDGING if name not in GENERATIVE]  # autoregressive: no latent, no decoder
# An export takes seconds, and these have their layers in common with a family that is exported in the default run.
SLOW_TO_EXPORT = ("beta-vae", "cvae", "item-first", "multiscale", "pixel-cnn", "pixel-cnn++", "pixel-vae", "vq-vae-2")
PIXELWISE = [*DENSITIES, "pixel-vae"]  # at first they find all images equally strange


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


@pytest.mark.parametrize("family", ALL)
def test_an_encoder_gives_unit_vectors_of_its_dimension(family: str) -> None:
    encoder = fitted_encoder(family)
    vectors = encoder.encode((make_images(3) * 255).byte())
    assert vectors.shape == (3, encoder.dim) and vectors.dtype == torch.float32
    assert encoder.metric == "cosine"
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("family", ALL)
def test_vectors_are_the_same_at_every_call_and_in_every_batch(family: str) -> None:
    encoder = fitted_encoder(family)
    x = make_images(5)
    together = encoder.encode(x)
    assert torch.equal(together, encoder.encode(x))
    alone = torch.cat([encoder.encode(image[None]) for image in x])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ALL)
def test_an_encoder_comes_back_from_disk_with_its_id_and_its_vectors(family: str, tmp_path: Path) -> None:
    encoder = fitted_encoder(family)
    loaded = load_encoder(encoder.save(tmp_path / "encoder"))
    x = make_images(4)
    assert loaded.encoder_id == encoder.encoder_id
    assert torch.equal(loaded.encode(x), encoder.encode(x))
    assert loaded.is_generative == encoder.is_generative == (family in GENERATIVE)


@pytest.mark.parametrize("family", GENERATIVE)
def test_a_generative_model_reconstructs(family: str) -> None:
    encoder = fitted_encoder(family)
    x = make_images(4)
    images = encoder.reconstruct(x)
    assert images.shape == x.shape
    assert 0.0 <= float(images.min()) and float(images.max()) <= 1.0


@pytest.mark.parametrize("family", SAMPLING)
def test_samples_are_images_that_the_seed_decides(family: str) -> None:
    encoder = fitted_encoder(family)
    images = encoder.sample(2, seed=1)
    assert images.shape == (2, 3, SIZE, SIZE)
    assert 0.0 <= float(images.min()) and float(images.max()) <= 1.0
    assert torch.equal(images, encoder.sample(2, seed=1))
    assert not torch.equal(images, encoder.sample(2, seed=2))


@pytest.mark.parametrize("family", SAMPLING)
def test_a_temperature_of_zero_leaves_nothing_to_chance(family: str) -> None:
    encoder = fitted_encoder(family)
    if family != "cvae":  # which still draws labels
        torch.testing.assert_close(encoder.sample(2, seed=1, temperature=0.0), encoder.sample(2, temperature=0.0))
    with pytest.raises(EncoderError, match=r"temperature must be at least 0, not -1"):
        encoder.sample(1, temperature=-1)


@pytest.mark.parametrize("family", COMPLETING)
def test_a_completion_keeps_what_is_known_and_draws_the_rest(family: str) -> None:
    encoder = fitted_encoder(family)
    x = make_images(2)
    known = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    known[:10] = True
    known[12, 3:7] = True
    drawn = encoder.complete(x, known, seed=3)
    assert torch.equal(drawn[:, :, known], x[:, :, known])
    assert not torch.equal(drawn[:, :, ~known], x[:, :, ~known])
    hidden = torch.where(known, x, torch.rand_like(x))
    assert torch.equal(encoder.complete(hidden, known, seed=3), drawn), "what is hidden was looked at"


@pytest.mark.parametrize("family", JUDGING)
def test_a_likelihood_is_finite_and_repeatable(family: str) -> None:
    encoder = fitted_encoder(family)
    x = make_images(4)
    likelihood = encoder.log_likelihood(x)
    assert likelihood.nats.shape == (4,) and bool(torch.isfinite(likelihood.nats).all())
    assert torch.equal(likelihood.nats, encoder.log_likelihood(x).nats)
    assert likelihood.exact == (family in DENSITIES)


@pytest.mark.parametrize("family", [name for name in JUDGING if name not in PIXELWISE])
def test_a_likelihood_is_lower_for_noise(family: str) -> None:
    encoder = fitted_encoder(family)
    likelihood = encoder.log_likelihood(make_images(4))
    x = make_images(4)
    noise = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(2)).float()
    assert bool((encoder.log_likelihood(noise).nats < likelihood.nats.min()).all())


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        *((family, {"normalisation": kind}) for family in STAGED for kind in ("batch", "none")),
        *((family, {}) for family in GRADIENT if family not in STAGED),
    ],
)
def test_the_gradient_reaches_every_parameter(family: str, changes: dict[str, Any]) -> None:
    model = build(family, **changes).train()
    if hasattr(model, "quantise"):  # with an empty codebook start, all vectors would be codes themselves: no error
        model.loss(batch_of(model, make_images(8, seed=5)), step=0)
    model.loss(batch_of(model, make_images(8)), step=0).objective.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("family", PIXELWISE)
def test_a_density_learns_one_batch_by_heart(family: str) -> None:
    wide = {"made": {"hidden": (200, 200)}, "pixel-vae": {"pixel_width": 16, "latent_dim": 16}}.get(
        family, {"width": 16}
    )
    size = SIZE if family == "pixel-vae" else 8  # whose latent has little to say of a small image
    model = build(family, size=size, **wide).train()
    x = make_images(8, size=size)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(100):
        optimiser.zero_grad()
        objective = model.loss(batch_of(model, x), step).objective
        objective.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimiser.step()
    noise = torch.randint(0, 256, x.shape, generator=torch.Generator().manual_seed(2)) / 255.0
    learnt, unknown = (model.eval().log_likelihood(images).nats.detach() for images in (x, noise))
    bits = -learnt / (x[0].numel() * math.log(2.0))
    assert float(bits.max()) < 7.0, "8 bits are what knowing nothing takes"
    assert bool((unknown < learnt.min()).all())


@pytest.mark.parametrize("family", [name for name in GRADIENT if name in GENERATIVE and name not in PIXELWISE])
def test_a_model_learns_one_batch_by_heart(family: str) -> None:
    wide: dict[str, Any] = {"widths": (16, 32), "decoder_widths": (32, 16)}
    changes: dict[str, Any] = {**wide, "latent_dim": 16}
    if "codes" in TINY[family]:
        changes = {**wide, "codes": 64, "code_dim": 8}
    model = build(family, **changes).train()
    x = make_images(8)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(150):
        optimiser.zero_grad()
        model.loss(batch_of(model, x), step).objective.backward()
        optimiser.step()
    error = torch.square(model.eval().reconstruct(x) - x).mean().detach()
    assert float(error) < 0.1 * float(x.var())


@pytest.mark.parametrize("family", GRADIENT)
def test_mixed_precision_keeps_the_objective_in_single_precision(family: str) -> None:
    model = build(family, **({"normalisation": "batch"} if family in STAGED else {})).train()
    if hasattr(model, "quantise"):
        model.loss(batch_of(model, make_images(8, seed=5)), step=0)
    objectives = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model.eval().loss(batch_of(model, make_images(8)), step=0)
        assert loss.objective.dtype == loss.latent.dtype == torch.float32
        objectives.append(loss.objective)
    torch.testing.assert_close(*objectives, rtol=0.02, atol=0)
    objectives[1].backward()
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in model.parameters())


@pytest.mark.parametrize("family", GRADIENT)
def test_a_pixel_without_weight_has_no_influence(family: str) -> None:
    model = build(family).eval()
    x = make_images(4)
    weight = torch.ones(4, 1, SIZE, SIZE)
    weight[:, :, :8] = 0.0
    changed = x.clone()
    changed[:, :, :8] = 1.0 - changed[:, :, :8]
    outcomes = []
    for target in (x, changed):
        torch.manual_seed(0)
        outcomes.append(model.loss(batch_of(model, x)._replace(target=target, weight=weight), step=0).objective)
    assert torch.equal(*outcomes)


@pytest.mark.parametrize("family", GRADIENT)
def test_the_loss_comes_with_the_latent_that_the_model_gives(family: str) -> None:
    model = build(family).eval()
    batch = batch_of(model, make_images(4))._replace(label=None)
    if family == "cvae":
        model = build(family, label_in_encoder=False).eval()
        batch = batch_of(model, make_images(4))
    loss = model.loss(batch, step=0)
    torch.testing.assert_close(loss.latent, model.latent(batch.x))
    assert loss.latent.requires_grad
    assert (loss.posterior is not None) == (family in VARIATIONAL)


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
    model = build(family, **changes).eval()
    x = make_images(2, size=size, channels=1)
    if family != "pixel-vae" or size <= 32:  # which draws pixel by pixel
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
    if not (family.startswith("vq") and field.name in MLP_ONLY)
    and (family, field.name) not in (("pixel-vae", "scale"), ("item-first", "channels"), ("item-first", "spare_plain"))
]


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
