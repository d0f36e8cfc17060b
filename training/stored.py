"""A trained model with the files that hold it: what encoders of images and of drawings have in common.

    weights.safetensors   all tensors of the model; for family `onnx` encoder.onnx, the graph, instead
    encoder.json          format, family, config, preprocessing, dim, metric
    card.json             information for people: data fingerprint, recipe, seed, commit, figures

The `encoder_id` is the SHA-256 of the weights (or graph) and encoder.json, so encoders with equal ids give equal
vectors. Nothing is ever pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, Self, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from training.card import card_bytes
from training.device import check_device
from training.errors import EncoderError
from training.files import publish_directory
from training.models import MODELS
from training.reference import (
    CARD_FILE,
    IMPORTED,
    WEIGHTS_FILE,
    Described,
    Metric,
    P,
    description_bytes,
    first_line,
    identity,
    weights_file,
)

Files = tuple[bytes, bytes]  # contents of the weights file and of `encoder.json`


class StoredModel(Generic[P]):
    """A model with its preprocessing, and the identity of both."""

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        family: str,
        config: Mapping[str, Any],
        preprocessing: P,
        card: Mapping[str, Any] | None = None,
        device: str | torch.device = "cpu",
        stored: Files | None = None,
        stored_as: torch.dtype | Mapping[str, torch.dtype] = torch.float32,
    ) -> None:
        """Wrap a model.

        Args:
            card: contents of `card.json`, without the id.
            stored: contents of the weights file and `encoder.json`, for an encoder that was loaded.
            stored_as: dtype of the tensors in the weights file, for all of them or by name.
        """
        self.family = family
        self.preprocessing: P = preprocessing
        self.card = dict(card or {})
        self.device = torch.device(device)
        self.model = cast(Any, model.to(self.device).eval())
        self.dim: int = self.model.dim
        self.metric: Metric = self.model.metric
        self.config = dict(config)
        # A loaded encoder keeps the bytes of its files, so that saving it again does not change its id.
        self._weights, self._description = stored or (_serialise(model, family, stored_as), self._describe())
        self.encoder_id = identity(self._weights, self._description)

    @classmethod
    def load(cls, described: Described[P], device: str | torch.device) -> Self:
        """The encoder of a directory with its weights.

        Raises:
            EncoderError: files are missing, damaged or of another format, or the device is not available.
        """
        model, stored = _load_model(described, device)
        return cls(
            model,
            family=described.family,
            config=described.config,
            preprocessing=described.preprocessing,
            card=described.card,
            device=device,
            stored=stored,
        )

    def stored_types(self) -> dict[str, torch.dtype]:
        """The dtype of each tensor in the weights file."""
        types = {name: tensor.dtype for name, tensor in self.model.state_dict().items()}
        if self.family != IMPORTED:
            types |= {name: tensor.dtype for name, tensor in load_tensors(self._weights).items()}
        return types

    def files(self) -> dict[str, bytes]:
        """Contents of the files of the encoder directory, by name."""
        card = {**self.card, "encoder_id": self.encoder_id}
        return {
            weights_file(self.family): self._weights,
            "encoder.json": self._description,
            CARD_FILE: card_bytes(card),
        }

    def save(self, directory: Path) -> Path:
        """Write the encoder directory atomically; an existing directory is replaced."""
        return publish_directory(Path(directory), self.files())

    def _describe(self) -> bytes:
        return description_bytes(self.family, self.config, self.preprocessing, dim=self.dim, metric=self.metric)


def _load_model(described: Described[P], device: str | torch.device) -> tuple[torch.nn.Module, Files]:
    """The model of an encoder directory, and the contents of its files."""
    check_device(device)
    directory = described.directory
    if described.family not in MODELS:
        raise EncoderError(f"{directory}: family {described.family!r} is not one of {', '.join(sorted(MODELS))}")
    family = MODELS[described.family]
    try:
        model = family.model(family.config(**described.config))
        name = weights_file(described.family)
        weights = (directory / name).read_bytes()
        model.load_state_dict(load_tensors(weights) if name == WEIGHTS_FILE else {"graph": _as_tensor(weights)})
        return model, (weights, (directory / "encoder.json").read_bytes())
    except (OSError, SafetensorError, TypeError, RuntimeError, ValueError) as exc:
        raise EncoderError(f"{directory}: not a usable encoder ({first_line(exc)})") from exc


def _serialise(model: torch.nn.Module, family: str, stored_as: torch.dtype | Mapping[str, torch.dtype]) -> bytes:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if family == IMPORTED:
        return bytes(tensors["graph"].numpy())
    types = stored_as if isinstance(stored_as, Mapping) else dict.fromkeys(tensors, stored_as)
    return save_tensors({name: t.to(types[name]) if t.is_floating_point() else t for name, t in tensors.items()})


def _as_tensor(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())


@torch.no_grad()
def round_weights(model: torch.nn.Module, stored_as: torch.dtype) -> None:
    """Round the weights of a model in place to the values that loading it from disk will give.

    Raises:
        EncoderError: a weight is out of the range of the dtype.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(stored_as))
            if not bool(tensor.isfinite().all()):
                raise EncoderError(f"{name} has values too large for {stored_as}; set weights=float32 in the recipe")
