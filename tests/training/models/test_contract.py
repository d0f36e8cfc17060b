"""What every family promises, checked on all of them alike."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.encoder import Encoder, GenerativeModel, load_encoder
from training.models import MODELS
from training.models.protocols import GradientModel, IncrementalModel
from training.preprocessing import Preprocessing

SIZE = 16
TINY: dict[str, dict[str, Any]] = {
    "hog": {},
    "pca": {"components": 6, "oversample": 2},
    "pixels": {},
    "vae": {"widths": (6, 8), "decoder_widths": (8, 6), "latent_dim": 5, "normalisation": "none"},
}
# For every setting of every config, another value than the tiny one: something must come out differently.
OTHER: dict[str, dict[str, Any]] = {
    "hog": {"size": 24, "channels": 1, "orientations": 5, "cell": 4, "block": 1},
    "pca": {"size": 8, "channels": 1, "components": 4, "oversample": 1, "whitening": 1.0},
    "pixels": {"size": 8, "channels": 1},
    "vae": {
        "size": 8,
        "channels": 1,
        "widths": (4, 8),
        "decoder_widths": (8, 4),
        "latent_dim": 4,
        "likelihood": "logistic",
        "scale": 0.5,
        "beta": 3.0,
        "free_bits": 2.0,
        "warmup_steps": 10,
        "samples": 2,
        "normalisation": "batch",
        "search_dim": 3,
        "whitening": 1.0,
    },
}
ALL = sorted(MODELS)
GENERATIVE = [name for name in ALL if issubclass(MODELS[name].model, GenerativeModel)]
GRADIENT = [name for name in ALL if issubclass(MODELS[name].model, GradientModel)]


def make_images(count: int, *, size: int = SIZE, channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth 8-bit images that differ along a few directions, as photos do."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return torch.round(smooth * 255.0) / 255.0


def build(family: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = MODELS[family].config(**{"size": SIZE, **TINY[family], **changes})
    return MODELS[family].model(config)


def fitted(family: str, **changes: Any) -> Any:
    """A model after its fit, or a few steps of it, on images of its own shape."""
    model = build(family, **changes)
    x = make_images(40, size=model.config.size, channels=model.config.channels)
    if isinstance(model, IncrementalModel):
        for batch in x.split(10):
            model.partial_fit(batch)
    if isinstance(model, GradientModel):
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-5)
        model.train()
        for step in range(2):
            optimiser.zero_grad()
            model.loss(x, step).objective.backward()
            optimiser.step()
        model, _ = model.finish([x])
    return model.eval()


def as_encoder(model: Any, family: str) -> Encoder:
    config = model.config
    return Encoder(
        model,
        family=family,
        config=asdict(config),
        preprocessing=Preprocessing(config.size, config.channels),
    )


@pytest.mark.parametrize("family", ALL)
def test_an_encoder_gives_unit_vectors_of_its_dimension(family: str) -> None:
    encoder = as_encoder(fitted(family), family)
    vectors = encoder.encode((make_images(3) * 255).byte())
    assert vectors.shape == (3, encoder.dim) and vectors.dtype == torch.float32
    assert encoder.metric == "cosine"
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("family", ALL)
def test_vectors_are_the_same_at_every_call_and_in_every_batch(family: str) -> None:
    encoder = as_encoder(fitted(family), family)
    x = make_images(5)
    together = encoder.encode(x)
    assert torch.equal(together, encoder.encode(x))
    alone = torch.cat([encoder.encode(image[None]) for image in x])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ALL)
def test_an_encoder_comes_back_from_disk_with_its_id_and_its_vectors(family: str, tmp_path: Path) -> None:
    encoder = as_encoder(fitted(family), family)
    loaded = load_encoder(encoder.save(tmp_path / "encoder"))
    x = make_images(4)
    assert loaded.encoder_id == encoder.encoder_id
    assert torch.equal(loaded.encode(x), encoder.encode(x))
    assert loaded.is_generative == encoder.is_generative == (family in GENERATIVE)


@pytest.mark.parametrize("family", GENERATIVE)
def test_a_generative_model_decodes_samples_and_judges_images(family: str) -> None:
    encoder = as_encoder(fitted(family), family)
    x = make_images(4)
    for images in (encoder.reconstruct(x), encoder.model.sample(4, torch.Generator().manual_seed(1)).detach()):
        assert images.shape == x.shape
        assert 0.0 <= float(images.min()) and float(images.max()) <= 1.0
    assert not torch.equal(encoder.model.sample(2), encoder.model.sample(2))
    likelihood = encoder.log_likelihood(x)
    assert likelihood.nats.shape == (4,) and bool(torch.isfinite(likelihood.nats).all())
    assert torch.equal(likelihood.nats, encoder.log_likelihood(x).nats)
    noise = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(2)).float()
    assert bool((encoder.log_likelihood(noise).nats < likelihood.nats.min()).all())


@pytest.mark.parametrize("family", GRADIENT)
@pytest.mark.parametrize("normalisation", ["batch", "none"])
def test_the_gradient_reaches_every_parameter(family: str, normalisation: str) -> None:
    model = build(family, normalisation=normalisation).train()
    model.loss(make_images(8), step=0).objective.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("family", GRADIENT)
def test_a_model_learns_one_batch_by_heart(family: str) -> None:
    model = build(family, warmup_steps=0, widths=(16, 32), decoder_widths=(32, 16), latent_dim=16).train()
    x = make_images(8)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(120):
        optimiser.zero_grad()
        model.loss(x, step).objective.backward()
        optimiser.step()
    error = torch.square(model.eval().reconstruct(x) - x).mean().detach()
    assert float(error) < 0.1 * float(x.var())


@pytest.mark.parametrize(("family", "setting"), [(f, field.name) for f in ALL for field in fields(MODELS[f].config)])
def test_every_setting_has_an_effect(family: str, setting: str) -> None:
    outcomes = [_outcome(family, {}), _outcome(family, {setting: OTHER[family][setting]})]
    assert not torch.equal(*outcomes)


def _outcome(family: str, changes: dict[str, Any]) -> Tensor:
    """Search vectors after a fit, and for models with a gradient the objective at step 0."""
    model = fitted(family, **changes)
    x = make_images(6, size=model.config.size, channels=model.config.channels, seed=3)
    parts = [model.embed(x).detach().flatten()]
    if family in GRADIENT:
        torch.manual_seed(1)
        trained = build(family, **changes).train()
        parts.append(trained.loss(x, step=0).objective.detach()[None])
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
