"""Several encoders as one: the weighted concatenation of their unit vectors.

With u_i the unit vector of part i and weights w_i that sum to 1, the vector is (sqrt(w_1) u_1, ..., sqrt(w_n) u_n). Its
norm is 1, and the cosine of two such vectors is the weighted mean of the parts' cosines: sum_i w_i cos_i. Adding up the
scores of several retrievers is CombSUM (Fox, Shaw: Combination of Multiple Searches, 1994, TREC-2,
https://trec.nist.gov/pubs/trec2/papers/txt/23.txt); as one vector, one index can be searched by it.

A fusion with a part that finds the item first tells the region of that part; of the first of them, where there are
several. A region that somebody framed is one for all of them.

Differs from the paper: scores are cosines, not rescaled for each query; the weights are chosen on held-out items.
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

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow turns colour into grey


def _baselines() -> tuple[Part, ...]:
    return (Part(family="pixels"), Part(family="hog"))


@dataclass(frozen=True)
class FusionConfig:
    """What is joined, and how much each part counts.

    Args:
        size, channels: of the images; parts of another size get them resized, grey parts their luma.
        parts: the encoders, each with its family and config.
        weights: one for each part, above 0, with sum 1.
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
            raise ValueError(f"parts must be two or more, not {len(self.parts)}")
        if len(self.weights) != len(self.parts):
            raise ValueError(f"weights must be one for each of {len(self.parts)} parts, not {len(self.weights)}")
        if not all(weight > 0 for weight in self.weights) or not abs(sum(self.weights) - 1) < 1e-6:
            raise ValueError(f"weights must be above 0 with sum 1, not {', '.join(f'{w:g}' for w in self.weights)}")
        for part in self.parts:
            if part.parsed().channels > self.channels:
                raise ValueError(f"channels must be 3, as part {part.family!r} sees colour, not {self.channels}")


class Fusion(nn.Module):
    """Images `(B, C, S, S)` in [0, 1] to unit vectors `(B, sum of the parts' dim)`."""

    metric: Metric = "cosine"

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.parts = nn.ModuleList(part.build() for part in config.parts)
        for part, model in zip(config.parts, self.members(), strict=True):
            if model.metric != "cosine":
                raise ValueError(f"part {part.family!r} has metric {model.metric!r}; a fusion is of cosines")
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
        """The unit vectors `(B, dim)` of each part."""
        vectors = [part.embed(self._seen_by(part, x)) for part in self.members()]
        return [nn.functional.normalize(found, dim=1) for found in vectors]

    def embed(self, x: Tensor) -> Tensor:
        return self._joined(self.part_vectors(x))

    def _embed_with_regions(self, x: Tensor, framed: Tensor) -> tuple[Tensor, Tensor]:
        """As `LocatingModel.embed_with_regions`; the regions are those of the first part that finds the item."""
        vectors, regions = [], []
        for part in self.members():
            seen = self._seen_by(part, x)
            if isinstance(part, LocatingModel):
                found, places = part.embed_with_regions(seen, framed)
                regions.append(places)
            else:
                found = part.embed(seen)
            vectors.append(nn.functional.normalize(found, dim=1))
        return self._joined(vectors), regions[0]

    def _joined(self, vectors: list[Tensor]) -> Tensor:
        shares = zip(self.config.weights, vectors, strict=True)
        return torch.cat([weight**0.5 * found for weight, found in shares], dim=1)

    def _seen_by(self, part: Any, x: Tensor) -> Tensor:
        if part.config.channels < self.config.channels:
            luma = torch.tensor(LUMA, dtype=x.dtype, device=x.device)
            x = (x * luma[:, None, None]).sum(dim=1, keepdim=True)
        return resize(x, part.config.size)
