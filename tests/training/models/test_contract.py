"""What every family promises, checked on all of them alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.models.families import (
    ALL,
    DENSITIES,
    GENERATIVE,
    JUDGING,
    PIXELWISE,
    SIZE,
    fitted_encoder,
    make_images,
)
from training.encoder import load_encoder
from training.errors import EncoderError
from training.models import MODELS
from training.protocols import (
    CompletingModel,
    SamplingModel,
)

SAMPLING = [name for name in ALL if issubclass(MODELS[name].model, SamplingModel)]


COMPLETING = [name for name in ALL if issubclass(MODELS[name].model, CompletingModel)]


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


@pytest.mark.slow
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
