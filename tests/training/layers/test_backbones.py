"""Backbones: five levels, frozen or tuned, of our own network and of torchvision's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.models import resnet18

from training.errors import RecipeError
from training.layers.backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone, BackboneConfig
from training.recipes import load_recipe

TINY = {"width": 0.25, "depth": 0.5}


def images(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("network", ["efficientnet-lite0", "torchvision:resnet18", "torchvision:mobilenet_v3_small"])
def test_each_level_halves_the_side(network: str) -> None:
    backbone = Backbone(BackboneConfig(network=network))
    with torch.no_grad():
        maps = backbone(images())
    assert [tuple(level.shape) for level in maps] == [
        (2, width, side, side) for width, side in zip(backbone.widths, (32, 16, 8, 4, 2), strict=True)
    ]


@torch.no_grad()
def test_torchvision_networks_give_their_own_features() -> None:
    torch.manual_seed(1)
    network = resnet18(weights=None).eval()
    backbone = Backbone(BackboneConfig(network="torchvision:resnet18"))
    backbone.load_published(network.state_dict())
    x = images()
    seen = (x - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    logits = network.fc(backbone(x)[-1].mean((2, 3)))
    torch.testing.assert_close(logits, network(seen), atol=1e-5, rtol=1e-5)


def test_normalisation_keeps_its_statistics_in_training() -> None:
    backbone = Backbone(BackboneConfig(network="torchvision:resnet18", tuned=5)).train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    maps = backbone(images())
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    with torch.no_grad():
        assert torch.equal(maps[-1][:1], backbone(images()[:1])[-1]) or torch.allclose(
            maps[-1][:1], backbone(images()[:1])[-1], atol=1e-5
        )


@pytest.mark.parametrize("tuned", [0, 1, 3, 5])
def test_the_last_levels_are_tuned(tuned: int) -> None:
    backbone = Backbone(BackboneConfig(tuned=tuned, **TINY))
    changes = [any(parameter.requires_grad for parameter in level.parameters()) for level in backbone.levels]
    assert changes == [False] * (5 - tuned) + [True] * tuned
    expected = sum(len(list(level.parameters())) for level in backbone.levels[5 - tuned :])
    assert len(backbone.tuned_parameters()) == expected


def test_gradients_reach_the_image_through_frozen_levels() -> None:
    x = images().requires_grad_()
    Backbone(BackboneConfig(**TINY))(x)[-1].sum().backward()
    assert x.grad is not None and bool((x.grad != 0).any())


def test_grey_images_are_seen_in_three_equal_channels() -> None:
    backbone = Backbone(BackboneConfig(**TINY))
    grey = images()[:, :1]
    with torch.no_grad():
        assert torch.equal(backbone(grey)[-1], backbone(grey.repeat(1, 3, 1, 1))[-1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network": "resnet18"}, "network must be efficientnet-lite0 or torchvision:NAME, not 'resnet18'"),
        ({"tuned": 6}, "tuned must be between 0 and 5 levels, not 6"),
        ({"width": 0.0}, r"width must be at least 0.1, not 0.0"),
        ({"network": "torchvision:resnet18", "depth": 0.5}, "depth must be 1 for torchvision:resnet18, not 0.5"),
    ],
)
def test_settings_out_of_range_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BackboneConfig(**values)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("torchvision:nothing", "torchvision has no model 'nothing'"),
        ("torchvision:convnext_tiny", "has no maps at strides 2, 4, 8, 16 and 32; use one such as"),
    ],
)
def test_networks_that_do_not_fit_are_refused(network: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Backbone(BackboneConfig(network=network))


def test_weights_of_another_network_are_refused_in_one_line() -> None:
    backbone = Backbone(BackboneConfig(network="torchvision:mobilenet_v3_small"))
    with pytest.raises(ValueError, match="these weights are not of torchvision:mobilenet_v3_small") as raised:
        backbone.load_published(resnet18(weights=None).state_dict())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.backbone.networks=x", "model.backbone.networks: unexpected"),
        ("model.backbone.tuned=9", "model.backbone: tuned must be between 0 and 5 levels, not 9"),
        ("preprocessing.size=72", "model.size must be a multiple of 32 with a backbone, not 72"),
        ("model.decoder_size=40", "model.decoder_size must be a multiple of 16 for 4 stages, at most the size"),
        ("model.network=mlp", "model.network must be conv with a backbone, not 'mlp'"),
        ("model.backbone=null", "model.keep, item_share and item_dim need a backbone"),
    ],
)
def test_a_recipe_says_what_is_wrong_with_its_backbone(override: str, message: str) -> None:
    overrides = [override, "model.foreground=false"] if "mlp" in override else [override]
    with pytest.raises(RecipeError, match=message):
        load_recipe("backbone-vae", overrides)


def test_weights_need_a_backbone_to_load_them() -> None:
    with pytest.raises(RecipeError, match="backbone_weights needs a model with a backbone"):
        load_recipe("vae", ["backbone_weights=x.safetensors"])
