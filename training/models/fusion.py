"""Fusion of several encoders: the weighted concatenation of their unit vectors.

With u_i the unit vector of part i and weights w_i that sum to 1, the vector is (sqrt(w_1) u_1, ..., sqrt(w_n) u_n). Its
norm is 1, and the cosine of two such vectors is the weighted mean of the parts' cosines: sum_i w_i cos_i. Adding up the
scores of several retrievers is CombSUM (Fox, Shaw: Combination of Multiple Searches, 1994, TREC-2,
https://trec.nist.gov/pubs/trec2/papers/txt/23.txt); as a single vector it can be searched in one index.

If a part finds the item first, the fusion returns the region of the first such part. An image that was already cropped
to the item counts as such for all parts.

Differs from the paper: scores are cosines and not rescaled per query; the weights are chosen on held-out items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.layers.checks import check_image
from training.layers.resample import resize
from training.models.families import Part
from training.protocols import LocatingModel
from training.reference import Metric

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as in Pillow's conversion to grey


def _baselines() -> tuple[Part, ...]:
    return (Part(family="pixels"), Part(family="hog"))


@dataclass(frozen=True)
class FusionConfig:
    """Configuration of `Fusion`.

    Args:
        size, channels: of the images; they are resized for parts of another size and converted to luma for grey parts.
        parts: the encoders, each with its family and config.
        weights: one per part, above 0, with sum 1.
    """

    size: int = 64
    channels: int = 3
    parts: tuple[Part, ...] = field(default_factory=_baselines)
    weights: tuple[float, ...] = (0.5, 0.5)

    def __post_init__(self) -> None:
        check_image(self.size, self.channels)
        given: tuple[Part | Mapping[str, Any], ...] = tuple(self.parts)
        object.__setattr__(self, "parts", tuple(Part.of(part) for part in given))
        object.__setattr__(self, "weights", tuple(float(weight) for weight in self.weights))
        if len(self.parts) < 2:
            raise ValueError(f"parts must be at least two, not {len(self.parts)}")
        if len(self.weights) != len(self.parts):
            raise ValueError(f"weights must be {len(self.parts)}, one per part, not {len(self.weights)}")
        if not all(weight > 0 for weight in self.weights) or not abs(sum(self.weights) - 1) < 1e-6:
            raise ValueError(f"weights must be above 0 with sum 1, not {', '.join(f'{w:g}' for w in self.weights)}")
        for part in self.parts:
            if part.parsed().channels > self.channels:
                raise ValueError(f"channels must be 3, as part {part.family!r} needs colour, not {self.channels}")


class Fusion(nn.Module):
    """Images `(B, C, S, S)` in [0, 1] to unit vectors `(B, sum of the parts' dim)`."""

    metric: Metric = "cosine"

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.parts = nn.ModuleList(part.build() for part in config.parts)
        for part, model in zip(config.parts, self.members(), strict=True):
            if model.metric != "cosine":
                raise ValueError(
                    f"part {part.family!r} has metric {model.metric!r}; a fusion needs parts with metric 'cosine'"
                )
        if any(isinstance(model, LocatingModel) for model in self.members()):
            self.embed_with_regions = self._embed_with_regions

    def members(self) -> Iterator[Any]:
        """The parts' models."""
        yield from self.parts

    @property
    def is_exportable(self) -> bool:
        return all(part.is_exportable for part in self.members())

    @property
    def dim(self) -> int:
        return sum(part.dim for part in self.members())

    def part_vectors(self, x: Tensor) -> list[Tensor]:
        """The unit vectors `(B, dim)` of every part."""
        vectors = [part.embed(self._input_of(part, x)) for part in self.members()]
        return [nn.functional.normalize(found, dim=1) for found in vectors]

    def embed(self, x: Tensor) -> Tensor:
        return self._joined(self.part_vectors(x))

    def _embed_with_regions(self, x: Tensor, framed: Tensor) -> tuple[Tensor, Tensor]:
        """As `LocatingModel.embed_with_regions`; the regions are those of the first part that finds the item."""
        vectors, regions = [], []
        for part in self.members():
            given = self._input_of(part, x)
            if isinstance(part, LocatingModel):
                found, located = part.embed_with_regions(given, framed)
                regions.append(located)
            else:
                found = part.embed(given)
            vectors.append(nn.functional.normalize(found, dim=1))
        return self._joined(vectors), regions[0]

    def _joined(self, vectors: list[Tensor]) -> Tensor:
        shares = zip(self.config.weights, vectors, strict=True)
        return torch.cat([weight**0.5 * found for weight, found in shares], dim=1)

    def _input_of(self, part: Any, x: Tensor) -> Tensor:
        if part.config.channels < self.config.channels:
            luma = torch.tensor(LUMA, dtype=x.dtype, device=x.device)
            x = (x * luma[:, None, None]).sum(dim=1, keepdim=True)
        return resize(x, part.config.size)
