"""Pretrained networks as the body of an encoder: feature maps at strides 2, 4, 8, 16 and 32.

`efficientnet-lite0` is implemented here (`training.layers.efficientnet_lite`); `torchvision:NAME` is a classifier of
torchvision, such as `torchvision:resnet18`, whose batch normalisation is kept and never updated. Weights come from a
file that `training.pretrained_backbones` reads; until they are loaded, a model has random weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from training.layers import efficientnet_lite
from training.layers.checks import check_at_least

LITE0 = "efficientnet-lite0"
TORCHVISION = "torchvision:"
STRIDE = 32  # of the last map
LEVELS = 5
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's weights
PROBED = 2 * STRIDE  # side of the image that a network's strides are measured with


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Configuration of `Backbone`.

    Args:
        network: `efficientnet-lite0`, or `torchvision:NAME`.
        tuned: number of levels that training updates, counted from the last; 0 freezes all, 5 tunes all.
        width, depth: multipliers of channels and blocks of `efficientnet-lite0`; 1 and 1 for the published weights.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    network: str = LITE0
    tuned: int = 0
    width: float = 1.0
    depth: float = 1.0

    def __post_init__(self) -> None:
        if self.network != LITE0 and not self.network.startswith(TORCHVISION):
            raise ValueError(f"network must be {LITE0} or {TORCHVISION}NAME, not {self.network!r}")
        if not 0 <= self.tuned <= LEVELS:
            raise ValueError(f"tuned must be between 0 and {LEVELS} levels, not {self.tuned}")
        for name in ("width", "depth"):
            check_at_least(name, getattr(self, name), 0.1)
            if self.network != LITE0 and getattr(self, name) != 1.0:
                raise ValueError(f"{name} must be 1 for {self.network}, not {getattr(self, name)}")

    @classmethod
    def of(cls, value: BackboneConfig | Mapping[str, Any]) -> BackboneConfig:
        """The config from a config, or from the values in JSON or YAML."""
        return value if isinstance(value, BackboneConfig) else cls(**value)


class Backbone(nn.Module):
    """Images to the feature maps of five levels, each with half the side of the one before; always in eval mode.

    Example:
        >>> backbone = Backbone(BackboneConfig(width=0.25, depth=0.5))
        >>> [tuple(level.shape[1:]) for level in backbone(torch.rand(1, 3, 64, 64))]
        [(8, 32, 32), (8, 16, 16), (8, 8, 8), (32, 4, 4), (1280, 2, 2)]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        if config.network == LITE0:
            self.levels, self.widths = efficientnet_lite.build_levels(config.width, config.depth)
            mean, std = (efficientnet_lite.MEAN,) * 3, (efficientnet_lite.STD,) * 3
        else:
            self.levels, self.widths = _torchvision_levels(_torchvision_network(config.network))
            mean, std = IMAGENET_MEAN, IMAGENET_STD
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        for level in self.levels[: LEVELS - config.tuned]:
            level.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: normalisation keeps its statistics and dropout is off in training too."""
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps from fine to coarse, `(B, widths[k], S / 2^(k + 1), S / 2^(k + 1))`.

        Args:
            x: images `(B, C, S, S)` in [0, 1], C being 3, or 1 for grey.
        """
        return run_levels(self.levels, self.normalise(x))

    def normalise(self, x: Tensor) -> Tensor:
        h = (x.expand(-1, 3, -1, -1) - self.mean) / self.std
        return h.contiguous(memory_format=torch.channels_last)

    def tuned_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Load the published weights of this network.

        Raises:
            ValueError: the weights belong to another network.
        """
        if self.config.network == LITE0:
            own = efficientnet_lite.fold_published(self.levels, state)
        else:
            network = _torchvision_network(self.config.network)
            _load(network, state, self.config.network)
            own = _torchvision_levels(network)[0].state_dict()
        _load(self.levels, own, self.config.network)


def run_levels(levels: Iterable[nn.Module], h: Tensor) -> list[Tensor]:
    maps = []
    for level in levels:
        h = level(h)
        maps.append(h)
    return maps


def _load(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as exc:  # one line per tensor: the second line names the first tensor
        lines = [line.strip() for line in str(exc).splitlines()]
        raise ValueError(f"these weights are not of {name}: {lines[min(1, len(lines) - 1)]:.200}") from exc


def _torchvision_network(name: str) -> nn.Module:
    from torchvision.models import get_model

    name = name.removeprefix(TORCHVISION)
    try:
        network: nn.Module = get_model(name, weights=None)
    except ValueError as exc:
        raise ValueError(f"network {TORCHVISION}{name}: torchvision has no model {name!r}") from exc
    return network.eval()


@torch.no_grad()
def _torchvision_levels(network: nn.Module) -> tuple[nn.ModuleList, tuple[int, ...]]:
    """The parts of a classifier before its pooling, grouped by the side of their outputs."""
    h = torch.zeros(1, 3, PROBED, PROBED)
    levels: list[nn.Sequential] = []
    widths: list[int] = []
    for part in _parts(network):
        h = part(h)
        halvings = (PROBED // h.shape[2]).bit_length() - 1
        level = max(1, halvings)  # parts that keep the full side join the first level
        if level > len(levels) + 1 or h.shape[2] << halvings != PROBED:
            break
        if level > len(levels):
            levels.append(nn.Sequential())
            widths.append(0)
        levels[-1].append(part)
        widths[-1] = h.shape[1]
    if len(levels) != LEVELS or h.shape[2] * STRIDE != PROBED:
        raise ValueError(
            f"network {type(network).__name__} has no maps at strides 2, 4, 8, 16 and 32; "
            f"use one such as {TORCHVISION}resnet18 or {TORCHVISION}mobilenet_v3_large"
        )
    return nn.ModuleList(levels), tuple(widths)


def _parts(network: nn.Module) -> list[nn.Module]:
    children = dict(network.named_children())
    if "layer4" in children:  # a ResNet
        return [children[name] for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")]
    if "trunk_output" in children:  # a RegNet
        return [children["stem"], *children["trunk_output"].children()]
    if "features" in children:
        return list(children["features"].children())
    return []
