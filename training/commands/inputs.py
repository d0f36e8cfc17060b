"""The images that a command on a model reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.console import Fault, note_unusable

if TYPE_CHECKING:
    from torch import Tensor

    from training.encoder import Encoder


@dataclass(frozen=True)
class Inputs:
    """Images prepared for an encoder, `(N, C, S, S)` uint8, their item ids, and the rejected files."""

    pixels: Tensor
    item_ids: list[str]
    rejected: list[dict[str, str]]


def read_inputs(encoder: Encoder, source: Path, limit: int | None) -> Inputs:
    """Read a source or a single image file, at most `limit` images; rejected files are noted on stderr."""
    import torch

    from training.data.dataset import load_dataset
    from training.data.sources import MANIFESTS, SourceImage, SourceProblem, read_images

    if source.is_file() and source.suffix.lower() not in MANIFESTS:
        images, problems = [SourceImage(source.name, str(source))], list[SourceProblem]()
    else:
        images, problems = read_images(source)
    dataset = load_dataset(images[:limit], encoder.preprocessing, progress=limit is None)
    faults: list[Fault] = [*problems, *dataset.skipped]
    note_unusable(faults)
    rejected = [{"where": fault.where, "reason": fault.reason} for fault in faults]
    return Inputs(torch.from_numpy(dataset.images), dataset.item_ids, rejected)
