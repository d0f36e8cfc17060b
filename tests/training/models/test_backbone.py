"""The pooled features of a backbone: as they are, or on the principal axes of one's own photos."""

from __future__ import annotations

import pytest
import torch

from training.layers.backbones import BackboneConfig
from training.layers.search import SearchSpace
from training.models.backbone import Pooled, PooledConfig

NETWORK = BackboneConfig(width=0.25, depth=0.5)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_features_are_averages_of_the_last_map() -> None:
    torch.manual_seed(0)
    model = Pooled(PooledConfig(size=32, backbone=NETWORK))
    model.partial_fit(images(4))
    model.check_fitted()
    with torch.no_grad():
        torch.testing.assert_close(model.embed(images(4)), model.backbone(images(4))[-1].mean((2, 3)))
    assert model.dim == 1280


@pytest.mark.slow
@torch.no_grad()
def test_principal_axes_are_those_of_all_photos_at_once() -> None:
    torch.manual_seed(0)
    model = Pooled(PooledConfig(size=32, backbone=NETWORK, search_dim=4, whitening=0.5))
    for batch in images(30).split(12):
        model.partial_fit(batch)
    model.check_fitted()
    once = SearchSpace(1280, 4, 0.5)
    once.fit(model.latent(images(30)))
    # axes of one variance may turn: distances are what search uses
    distances = [torch.cdist(v, v) for v in (model.embed(images(30)), once(model.latent(images(30))))]
    torch.testing.assert_close(*distances, atol=1e-3, rtol=1e-3)


def test_too_few_photos_and_unfit_settings_are_named() -> None:
    model = Pooled(PooledConfig(size=32, backbone=NETWORK, search_dim=4))
    model.partial_fit(images(4))
    with pytest.raises(ValueError, match=r"search_dim must be below the number of training images \(4\), not 4"):
        model.check_fitted()
    with pytest.raises(ValueError, match=r"search_dim must be at most 1280 \(features of the network\), not 2000"):
        Pooled(PooledConfig(backbone=NETWORK, search_dim=2000))
    with pytest.raises(ValueError, match="whitening must be 0 without a search_dim"):
        PooledConfig(whitening=0.5)
    with pytest.raises(
        ValueError, match="backbone.tuned must be 0 for this family, which is not trained by gradient, not 1"
    ):
        PooledConfig(backbone=BackboneConfig(tuned=1))
