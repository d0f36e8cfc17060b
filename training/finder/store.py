"""Load and save finder directories: weights.safetensors, finder.json (format, config), finder.onnx, card.json.

No file is a pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from training.card import card_bytes
from training.errors import EncoderError
from training.files import publish_directory
from training.finder.network import Finder, FinderConfig
from training.onnx.export import export_graph
from training.reference import CARD_FILE, PRETRAINED, first_line, read_json

FORMAT = 1
SHIPPED = PRETRAINED / "finder"


def save_finder(finder: Finder, directory: Path, card: Mapping[str, Any]) -> Path:
    """Write a finder directory atomically; the network is stored in float16, with its normalisation folded."""
    network = finder.folded() if finder.config.normalisation else finder
    tensors = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    weights = save_tensors(tensors)
    description = {"format": FORMAT, "config": asdict(network.config)}
    described = (json.dumps(description, sort_keys=True, indent=1) + "\n").encode()
    full_card = {**card, "finder_id": hashlib.sha256(weights + described).hexdigest()}
    return publish_directory(
        Path(directory),
        {
            "weights.safetensors": weights,
            "finder.json": described,
            "finder.onnx": to_onnx(network),
            CARD_FILE: card_bytes(full_card),
        },
    )


class _Probabilities(nn.Module):
    """Images `(B, 3, S, S)` uint8 to probabilities `(B, 1, h, h)` and the predicted IoU `(B,)`."""

    def __init__(self, finder: Finder) -> None:
        super().__init__()
        self.finder = finder

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        found = self.finder(pixels.float() / 255.0)
        return torch.sigmoid(found.mask), torch.sigmoid(found.quality)


def to_onnx(finder: Finder) -> bytes:
    """The graph run by `training.data.item_finder`: `pixels` to `mask` and `quality`, for any batch size."""
    size = finder.config.size
    example = torch.zeros((2, 3, size, size), dtype=torch.uint8)
    shapes = ({0: torch.export.Dim("batch")},)
    return export_graph(_Probabilities(finder), (example,), ["pixels"], ["mask", "quality"], shapes)


def load_finder(directory: str | Path | None = None) -> Finder:
    """Load the finder of a directory; None loads the shipped one.

    Raises:
        EncoderError: the directory's files are missing, damaged or in another format.
    """
    folder = SHIPPED if directory is None else Path(directory)
    description = read_json(folder / "finder.json")
    if description.get("format") != FORMAT:
        raise EncoderError(f"{folder}: format {description.get('format')!r} is not {FORMAT}; train the finder again")
    try:
        finder = Finder(FinderConfig(**description["config"]))
        tensors = load_tensors((folder / "weights.safetensors").read_bytes())
        finder.load_state_dict({name: tensor.to(torch.float32) for name, tensor in tensors.items()})
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as exc:
        raise EncoderError(f"{folder}: not a usable finder ({first_line(exc)})") from exc
    return finder.eval()
