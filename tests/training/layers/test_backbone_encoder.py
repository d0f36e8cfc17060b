"""A VAE on a backbone: what it reads, what it keeps, and that it ships as any other."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.encoder import Encoder, load_encoder
from training.layers.backbones import BackboneConfig
from training.layers.foreground import LEAST
from training.models import MODELS
from training.onnx.export import check_agreement, to_onnx
from training.preprocessing import Preprocessing
from training.protocols import Batch

SIZE, DECODED = 64, 16
FAMILIES = ["vae", "beta-vae", "cvae", "pixel-vae"]
KEEPING: dict[str, Any] = {"keep": 5.0, "item_share": 0.25, "item_dim": 3}


def build(family: str = "vae", *, tuned: int = 1, **changes: Any) -> Any:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "size": SIZE, "decoder_size": DECODED, "decoder_widths": (8, 6), "latent_dim": 5, "foreground": True,
        "backbone": BackboneConfig(width=0.25, depth=0.5, tuned=tuned), **changes,
    }  # fmt: skip
    if family == "pixel-vae":
        values |= {"mixtures": 2, "receptive_field": 3, "map_width": 4, "pixel_width": 6, "head": 8}
    return MODELS[family].model(MODELS[family].config(**values))


def images(count: int = 6, seed: int = 0) -> Tensor:
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.round(torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear") * 255.0) / 255.0


def batch_of(model: Any, x: Tensor, **parts: Tensor) -> Batch:
    label = torch.arange(len(x)) % model.config.classes if hasattr(model.config, "classes") else None
    return Batch(x, x, None, label)._replace(**parts)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_all_that_is_not_frozen(family: str) -> None:
    model = build(family, tuned=2).train()
    model.loss(batch_of(model, images()), step=0).objective.backward()
    for name, parameter in model.named_parameters():
        is_frozen = any(f"levels.{level}." in name for level in (0, 1, 2))
        assert (parameter.grad is None) == is_frozen, name
        assert is_frozen or bool((parameter.grad != 0).any()), name
    assert {id(p) for p in model.backbone_parameters()} <= {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("vae", {}),
        ("vae", {"foreground": False, **KEEPING}),
        pytest.param("cvae", {}, marks=pytest.mark.slow),
        pytest.param("pixel-vae", {"foreground": False, **KEEPING}, marks=pytest.mark.slow),
    ],
)
def test_it_ships_loads_and_exports_as_any_other(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = build(family, **changes)
    finished, config = model.eval().finish([batch_of(model, images(20))])
    assert config.backbone.tuned == 0 and not finished.encoder._teacher
    encoder = Encoder(finished, family=family, config=asdict(config), preprocessing=Preprocessing(SIZE, 3))
    loaded = load_encoder(encoder.save(tmp_path / "encoder"))
    x = images(4, seed=1)
    assert torch.equal(loaded.encode(x), encoder.encode(x)) and loaded.encoder_id == encoder.encoder_id
    assert encoder.encode(x).shape == (4, 8 if changes else 5)
    torch.testing.assert_close(encoder.encode(x[:1]), encoder.encode(x)[:1], atol=1e-5, rtol=0)
    check_agreement(encoder, to_onnx(encoder))


@pytest.mark.parametrize("family", ["vae", "cvae"])
def test_images_come_out_in_the_size_that_went_in(family: str) -> None:
    model = build(family).eval()
    x = images(2)
    assert model.reconstruct(x).shape == model.sample(2).shape == x.shape
    assert model.values(x) == 3 * DECODED**2


@torch.no_grad()
def test_the_likelihood_is_of_the_reduced_8_bit_target() -> None:
    model = build(likelihood="logistic").eval()
    x = images(3)
    z = model.posterior(x).mean
    reduced = model._reduced(batch_of(model, x))
    assert reduced.target.shape == (3, 3, DECODED, DECODED)
    assert torch.equal(torch.round(reduced.target * 255.0) / 255.0, reduced.target)
    by_blocks = torch.nn.functional.avg_pool2d(x, SIZE // DECODED)
    assert (reduced.target - by_blocks).abs().max() < 0.1
    nats = model.likelihood(reduced.target, model.parameters_of(z))
    bound = model.elbo(batch_of(model, x), generator=torch.Generator().manual_seed(0))
    assert bound.log_likelihood.shape == nats.shape
    assert (bound.log_likelihood - nats).abs().max() < 0.2 * nats.abs().max()
    whole = batch_of(model, x)._replace(weight=torch.zeros(3, 1, SIZE, SIZE))
    assert torch.equal(model.elbo(whole).log_likelihood, torch.zeros(3))


@torch.no_grad()
def test_an_untuned_network_misses_nothing_of_a_target_that_it_sees() -> None:
    model = build(keep=1.0)
    batch = batch_of(model, images())
    assert float(model.encoder.missed(model.extract(batch.x), batch)) < 1e-6
    other = batch._replace(target=images(seed=3))
    assert float(model.encoder.missed(model.extract(batch.x), other)) > 0.1


@torch.no_grad()
def test_the_teacher_stays_as_it_was_while_the_network_is_tuned() -> None:
    model = build(keep=1.0, foreground=False)
    batch = batch_of(model, images())
    for parameter in model.backbone_parameters():
        parameter.mul_(1.1)
    assert float(model.encoder.missed(model.extract(batch.x), batch)) > 0.01
    assert not any("teacher" in name for name in model.state_dict())


@torch.no_grad()
def test_the_teacher_averages_over_the_mask_where_one_is_known() -> None:
    model = build(keep=1.0)
    mask = torch.zeros(4, 1, SIZE, SIZE)
    mask[:, :, :32] = 1.0
    mask[1] = torch.nan
    batch = batch_of(model, images(4), mask=mask)
    seen = model.extract(batch.x)
    weight = model.encoder._weight(seen, batch, 2)
    expected = torch.tensor([[1.0, 1.0], [0.0, 0.0]]) + LEAST
    torch.testing.assert_close(weight[0, 0], expected)
    guess = torch.nn.functional.adaptive_avg_pool2d(torch.sigmoid(seen.foreground), 2)
    torch.testing.assert_close(weight[1], guess[1] + LEAST)


@torch.no_grad()
def test_the_cosine_of_two_search_vectors_is_shared_between_latent_and_item() -> None:
    model = build(**KEEPING)
    x = images(20)
    finished, _ = model.eval().finish([batch_of(model, x)])
    seen = finished.extract(x)
    parts = finished.search(finished.latent(x)), finished.item_search(seen.item)
    cosines = [
        torch.nn.functional.normalize(part, dim=1) @ torch.nn.functional.normalize(part, dim=1).T for part in parts
    ]
    unit = torch.nn.functional.normalize(finished.embed(x), dim=1)
    torch.testing.assert_close(unit @ unit.T, 0.75 * cosines[0] + 0.25 * cosines[1], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_label_joins_the_features_of_a_trained_network() -> None:
    model = build("cvae", classes=3).eval()
    x = images(3)
    one, other = (model.posterior(x, torch.full((3,), label)).mean for label in (0, 1))
    assert not torch.equal(one, other)
