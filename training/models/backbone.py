"""Family `backbone`: the average of the last feature map of a pretrained network as an encoder.

The baseline for every encoder that starts from the same network: Babenko, Slesarev, Chigorin, Lempitsky: Neural Codes
for Image Retrieval, 2014, https://arxiv.org/abs/1404.1777, and Babenko, Lempitsky: Aggregating Deep Convolutional
Features for Image Retrieval, 2015, https://arxiv.org/abs/1510.07493, section 4 (sum pooling, then PCA and whitening).

With `search_dim` null the features are used unchanged and training learns nothing from the photos. A number keeps that
many principal axes of the features (`training.layers.search`), fitted in one pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from training.layers.backbones import Backbone, BackboneConfig
from training.layers.checks import check_at_least, check_image, check_share
from training.layers.search import Moments, SearchSpace
from training.reference import Metric


@dataclass(frozen=True, kw_only=True)
class PooledConfig:
    """Configuration of `Pooled`.

    Args:
        size: side of the images in pixels.
        channels: 3, or 1 for grey images, which are repeated three times for the network.
        backbone: the network.
        search_dim: number of principal axes of the features in the search vector; None uses the features unchanged.
        whitening: see `training.layers.search`; needs a search_dim.
    """

    size: int = 224
    channels: int = 3
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    search_dim: int | None = None
    whitening: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "backbone", BackboneConfig.of(self.backbone))
        check_image(self.size, self.channels)
        if self.search_dim is not None:
            check_at_least("search_dim", self.search_dim, 1)
        check_share("whitening", self.whitening)
        if self.whitening and self.search_dim is None:
            raise ValueError(f"whitening must be 0 without a search_dim, not {self.whitening}")
        if self.backbone.tuned:
            raise ValueError(
                f"backbone.tuned must be 0 for this family, which is not trained by gradient, not {self.backbone.tuned}"
            )


class Pooled(nn.Module):
    """Images `(B, C, S, S)` in [0, 1] to the pooled features of a backbone, optionally in a `SearchSpace`.

    Example:
        >>> model = Pooled(PooledConfig(size=64, backbone=BackboneConfig(width=0.25, depth=0.5)))
        >>> model.embed(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 1280])
    """

    metric: Metric = "cosine"
    is_exportable = True

    def __init__(self, config: PooledConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        features = self.backbone.widths[-1]
        if config.search_dim is not None and config.search_dim > features:
            raise ValueError(
                f"search_dim must be at most {features} (features of the network), not {config.search_dim}"
            )
        kept = config.search_dim
        self.search = None if kept is None else SearchSpace(features, kept, config.whitening)
        self._moments = Moments(features)
        self.to(memory_format=torch.channels_last)

    @property
    def dim(self) -> int:
        return self.backbone.widths[-1] if self.search is None else self.search.dim

    @property
    def backbone_network(self) -> str:
        return self.config.backbone.network

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """See `training.protocols.BackboneModel`."""
        self.backbone.load_published(state)

    def backbone_parameters(self) -> list[nn.Parameter]:
        return self.backbone.tuned_parameters()

    def latent(self, x: Tensor) -> Tensor:
        """Pooled features `(B, F)`."""
        last: Tensor = self.backbone(x)[-1]
        return last.mean(dim=(2, 3))

    def embed(self, x: Tensor) -> Tensor:
        features = self.latent(x)
        vectors: Tensor = features if self.search is None else self.search(features)
        return vectors

    @torch.no_grad()
    def partial_fit(self, x: Tensor) -> None:
        """Update the search space, if there is one, with a batch `(B, C, S, S)` in [0, 1]."""
        if self.search is None:
            return
        self._moments.add(self.latent(x))
        if self._moments.count > self.search.kept:
            self.search.fit_moments(self._moments.mean, self._moments.covariance())

    def check_fitted(self) -> None:
        """Raise ValueError if it has seen too few images for the search space."""
        if self.search is not None and self._moments.count <= self.search.kept:
            seen, wanted = self._moments.count, self.search.kept
            raise ValueError(f"search_dim must be below the number of training images ({seen}), not {wanted}")
