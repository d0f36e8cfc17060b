"""Code maps of one level and of two: objectives, bounds, decoding, and what the top tells the bottom."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from training.models.vq_vae import VqVae, VqVaeConfig
from training.models.vq_vae_2 import VqVae2, VqVae2Config
from training.protocols import Batch

from .families import make_images

TINY: dict[str, Any] = {
    "size": 16,
    "widths": (6, 8),
    "decoder_widths": (8, 6),
    "codes": 8,
    "code_dim": 3,
    "pool": 2,
    "normalisation": "none",
}
X = make_images(30)


def build(family: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    settings = {**TINY, **changes}
    return VqVae(VqVaeConfig(**settings)) if family == "vq-vae" else VqVae2(VqVae2Config(top_width=6, **settings))


def started(family: str, **changes: Any) -> Any:
    """A model whose codebooks hold vectors of images."""
    model = build(family, **changes).train()
    model.loss(Batch(X, X), step=0)
    return model.eval()


@pytest.mark.parametrize("family", ["vq-vae", "vq-vae-2"])
def test_codes_decode_to_the_reconstruction(family: str) -> None:
    model = started(family)
    torch.testing.assert_close(model.decode(model.codes(X)), model.reconstruct(X))


@pytest.mark.parametrize("family", ["vq-vae", "vq-vae-2"])
def test_maps_that_the_images_do_not_share_are_given_by_level(family: str) -> None:
    maps = started(family).code_maps(X)
    sides = {"vq-vae": {"": 4}, "vq-vae-2": {"_top": 2, "": 4}}[family]
    assert {ending: tuple(codes.shape) for ending, codes in maps.items()} == {
        ending: (30, side, side) for ending, side in sides.items()
    }


@pytest.mark.parametrize("family", ["vq-vae", "vq-vae-2"])
def test_the_bound_is_the_likelihood_given_the_codes_and_the_codes_prior(family: str) -> None:
    model = started(family).requires_grad_(False)
    given = model.likelihood(X, _parameter(model))
    places = sum(codes[0].numel() for codes in model.code_maps(X).values())
    uniform = given - places * math.log(8)  # before the priors are fitted
    torch.testing.assert_close(model.log_likelihood(X).nats, uniform)
    assert not model.log_likelihood(X).exact
    fitted, _ = model.finish([Batch(X, X)])
    nats = fitted.log_likelihood(X).nats.detach()
    assert bool((nats <= given + 1e-3).all())
    assert float(nats.mean()) > float(uniform.mean())


@pytest.mark.parametrize("family", ["vq-vae", "vq-vae-2"])
def test_the_objective_has_the_quantisers_terms_in_nats(family: str) -> None:
    model = started(family, update="loss", commitment=0.5)
    terms = [model.quantise(X)] if family == "vq-vae" else list(model.quantise(X))
    loss = model.loss(Batch(X, X), step=0)
    expected = 0.5 * X[0].numel() * sum(level.loss for level in terms) - loss.scalars["log_likelihood"]
    torch.testing.assert_close(loss.objective, expected)


@pytest.mark.parametrize("family", ["vq-vae", "vq-vae-2"])
@pytest.mark.parametrize("update", ["ema", "loss"])
def test_a_batch_with_fewer_vectors_than_codes_will_do(family: str, update: str) -> None:
    model = build(family, codes=200, update=update, restart=1.0).train()
    for step in range(3):
        loss = model.loss(Batch(X[:2], X[:2]), step).objective
        loss.backward()
        assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(model.eval().embed(X)).all())


@pytest.mark.parametrize("family", ["vq-vae", "vq-vae-2"])
def test_samples_have_only_codes_that_their_places_had(family: str) -> None:
    model, _ = started(family).finish([Batch(X, X)])
    prior = model.prior
    prior.shares.zero_()
    prior.shares[:, 5] = 1.0
    assert bool((prior.sample(4) == 5).all())
    assert model.sample(4).shape == (4, 3, 16, 16)


def test_the_bottom_map_is_told_the_top_one() -> None:
    model = started("vq-vae-2")
    before = model.quantise(X).bottom.codes
    with torch.no_grad():
        model.decoder_top.bias.add_(5.0)
    after = model.quantise(X)
    assert not torch.equal(after.bottom.codes, before)
    top = after.top.codes.clone()
    with torch.no_grad():
        model.to_bottom.weight.zero_()
        model.to_bottom.bias.zero_()
    assert torch.equal(model.quantise(X).top.codes, top)  # the top is quantised first, whatever the bottom is


def test_the_search_vector_may_be_of_the_top_alone() -> None:
    codes = started("vq-vae-2").codes(X[:1])
    changed = codes.clone()
    changed[0, 4:] = (changed[0, 4:] + 1) % 8  # the bottom's codes
    for levels, has_bottom in (("both", True), ("top", False)):
        model = started("vq-vae-2", search_levels=levels)
        assert torch.equal(model.describe(codes), model.describe(changed)) is not has_bottom
        assert model.latent(X).shape[1] * (1 if has_bottom else 2) == started("vq-vae-2").latent(X).shape[1]


def test_both_maps_reach_the_picture() -> None:
    model = started("vq-vae-2")
    codes = model.codes(X[:1])
    for place in (0, 4):  # the first of the top's 4 codes, and the first of the bottom's 16
        changed = codes.clone()
        changed[0, place] = (changed[0, place] + 1) % 8
        assert not torch.allclose(model.decode(changed), model.decode(codes))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codes": 1}, "codes must be at least 2, not 1"),
        ({"code_dim": 0}, "code_dim must be at least 1, not 0"),
        ({"update": "sgd"}, "update must be ema or loss, not 'sgd'"),
        ({"decay": 1.0}, "decay must lie between 0 and 1, not 1.0"),
        ({"commitment": -0.1}, "commitment must be at least 0, not -0.1"),
        ({"restart": -1.0}, "restart must be at least 0, not -1.0"),
        ({"pool": 0}, "pool must be at least 1, not 0"),
        ({"histogram_weight": -1.0}, "histogram_weight must be at least 0, not -1.0"),
        ({"turn": "qr"}, "turn must be pca or zca, not 'qr'"),
        ({"search_dim": 10_000}, "search_dim must be between 1 and"),
    ],
)
@pytest.mark.parametrize("config", [VqVaeConfig, VqVae2Config])
def test_a_bad_setting_is_named(config: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_grids_that_do_not_divide_their_maps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pool must divide the side of the code map \(8\), not be 3"):
        VqVaeConfig(pool=3)
    with pytest.raises(ValueError, match=r"pool must divide the side of the top map \(8\), not be 16"):
        VqVae2Config(pool=16)
    with pytest.raises(ValueError, match="size must give a bottom map with an even side, not 7"):
        VqVae2Config(size=28, pool=1)
    with pytest.raises(ValueError, match="top_width must be at least 1, not 0"):
        VqVae2Config(top_width=0)


def _parameter(model: Any) -> torch.Tensor:
    quantised = model.quantise(X)
    if isinstance(model, VqVae2):
        return model.parameters_of(quantised.top.z, quantised.bottom.z)
    return model.parameters_of(quantised.z)
