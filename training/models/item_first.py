"""An encoder that finds the item first, crops the image to it, and then encodes the crop.

A finder (`training.finder`) predicts for each pixel the probability m of belonging to the item, and the intersection
over union that it expects of that mask, which is its confidence c. From these follow

    box       a square around the item's mass with a margin, which keeps the item's proportions
    w         weight of the finder: 0 up to a confidence of `doubt`, 1 from `trust`, linear in between
    region    w box + (1 - w) whole image
    cut-out   v x + (1 - v) white, v = 1 - p w (1 - m), of the region at the inner encoder's size, with p = `paint`;
              `spare_plain` reduces p on a plain background, which needs no painting and where errors of m would show

and the search vector is the inner encoder's vector of the cut-out. A photo in which nothing is found is thus encoded
whole, and one with a clear item is encoded as the item alone. With a weight b for the whole image (`beside`) it is

    z = (1 - b) u(cut-out) + b u(image), scaled to unit norm, where u is the inner encoder's unit vector

which keeps information from the whole image (how an item is worn, what it is shown with, what the finder missed). Wei
et al.: Selective Convolutional Descriptor Aggregation, 2017, https://arxiv.org/abs/1604.04994, likewise keep what is
inside of a mask that is found without labels.

Differs from the paper: the image is cropped and masked before encoding, instead of the features afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from training.finder.network import Finder, FinderConfig
from training.layers.checks import check_image
from training.layers.resample import crop, resize
from training.models.families import Part
from training.protocols import GenerativeModel, LabelConditionedModel, Likelihood, LikelihoodModel, SamplingModel
from training.reference import Metric

WHITE = 1.0
TAIL = 0.02  # fraction of the mass that may lie beyond each end of the span, so that stray cells do not extend it
FAINT = 0.3  # cells below this probability have no mass
RIM = 3  # width in cells of the rim, which has one colour on a plain background
SPARSE = 7  # the median uses every seventh cell of the rim
ALIKE = 0.06  # largest difference of a channel from the rim's median that counts as the same colour
PLAIN = (0.75, 0.9)  # fractions of the rim in that colour at which plainness is 0 and 1
TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class ItemFirstConfig:
    """Configuration of `ItemFirst`.

    Args:
        size: side of the images; larger than the inner encoder's, as items are cropped from them.
        channels: channels of the images; 3.
        finder: config of the finder, without normalisation.
        encoder: the inner encoder.
        margin: margin on each side of the item's span, as a fraction of it.
        doubt, trust: confidence up to which the whole image is used, and from which only the item is.
        paint: how white the background becomes, 0 to 1; 0 only crops.
        spare_plain: leave a plain background unpainted.
        passes: 2 runs the finder again on the crop of the first pass, for a finer mask.
        beside: weight of the whole image's vector beside the item's, at least 0 and below 1; above 0 the inner encoder
            runs twice and needs metric cosine.
    """

    size: int = 192
    channels: int = 3
    finder: Mapping[str, Any] = field(default_factory=lambda: {"normalisation": False})
    encoder: Part | Mapping[str, Any] = field(default_factory=lambda: {"family": "pixels", "config": {"size": 64}})
    margin: float = 0.08
    doubt: float = 0.3
    trust: float = 0.6
    paint: float = 1.0
    spare_plain: bool = False
    passes: int = 1
    beside: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoder", Part.of(self.encoder))
        check_image(self.size, self.channels)
        if self.channels != 3:
            raise ValueError(f"channels must be 3, as the finder needs colour, not {self.channels}")
        finder = FinderConfig(**self.finder)
        if finder.normalisation:
            raise ValueError("finder.normalisation must be false, as the shipped network has it folded in")
        if self.size < finder.size:
            raise ValueError(f"size must be at least the finder's {finder.size} pixels, not {self.size}")
        if not 0 <= self.margin <= 1:
            raise ValueError(f"margin must be between 0 and 1, not {self.margin}")
        if not 0 <= self.doubt < self.trust <= 1:
            raise ValueError(f"doubt must be below trust, both within [0, 1], not {self.doubt} and {self.trust}")
        if not 0 <= self.paint <= 1:
            raise ValueError(f"paint must be between 0 and 1, not {self.paint}")
        if self.passes not in (1, 2):
            raise ValueError(f"passes must be 1 or 2, not {self.passes}")
        if not 0 <= self.beside < 1:
            raise ValueError(f"beside must be at least 0 and below 1, not {self.beside}")
        if self.part.config.get("channels", 3) != 3:
            raise ValueError("encoder.channels must be 3, as for the images")

    @property
    def part(self) -> Part:
        """The inner encoder, parsed."""
        return Part.of(self.encoder)


class Region(NamedTuple):
    """The part of each image that is encoded.

    Args:
        box: left, top, right, bottom as fractions of the image `(B, 4)`; may extend beyond [0, 1].
        mask: probability of each cell of belonging to the item `(B, 1, h, h)`.
        confidence: confidence of the finder in [0, 1] `(B,)`.
        weight: weight of the finder in [0, 1] `(B,)`.
        paint: how white the background becomes, in [0, 1] `(B,)`.
    """

    box: Tensor
    mask: Tensor
    confidence: Tensor
    weight: Tensor
    paint: Tensor


class ItemFirst(nn.Module):
    """A finder in front of an inner encoder, which gives the search vector.

    Example:
        >>> encoder = ItemFirst(ItemFirstConfig(size=96))
        >>> encoder.embed(torch.rand(2, 3, 96, 96)).shape
        torch.Size([2, 12288])
    """

    def __init__(self, config: ItemFirstConfig) -> None:
        super().__init__()
        self.config = config
        self.finder = Finder(FinderConfig(**config.finder))
        self.encoder: Any = config.part.build()
        self.metric: Metric = self.encoder.metric
        if config.beside > 0 and self.metric != "cosine":
            raise ValueError(
                f"beside must be 0 for an inner encoder with metric {self.metric!r}, as it adds unit vectors"
            )
        # This model has the capabilities of the inner encoder (`training.protocols`), on the cut-out of an image.
        if isinstance(self.encoder, SamplingModel):
            self.sample = self.encoder.sample
        if isinstance(self.encoder, LabelConditionedModel):
            self.classes = self.encoder.classes
        if isinstance(self.encoder, GenerativeModel):
            self.decode, self.reconstruct = self.encoder.decode, self._reconstruct
        if isinstance(self.encoder, LikelihoodModel):
            self.log_likelihood = self._log_likelihood

    @property
    def dim(self) -> int:
        dim: int = self.encoder.dim
        return dim

    @property
    def inner_size(self) -> int:
        size: int = self.config.part.parsed().size
        return size

    @property
    def is_exportable(self) -> bool:
        return bool(self.encoder.is_exportable)

    def embed(self, x: Tensor) -> Tensor:
        """Vectors `(B, dim)` of images `(B, 3, S, S)` in [0, 1]."""
        return self._vectors(x, self.locate(x))

    def embed_with_regions(self, x: Tensor, framed: Tensor) -> tuple[Tensor, Tensor]:
        """See `training.protocols.LocatingModel`."""
        region = self.locate(x, framed)
        regions = torch.cat([region.box.clamp(0.0, 1.0), region.confidence[:, None]], dim=1)
        return self._vectors(x, region), regions

    def _vectors(self, x: Tensor, region: Region) -> Tensor:
        share = self.config.beside
        item: Tensor = self.encoder.embed(self.cut_out(x, region))
        if share == 0:
            return item
        whole = normalize(self.encoder.embed(resize(x, self.inner_size)), dim=1)
        return normalize(torch.lerp(normalize(item, dim=1), whole, share), dim=1)

    def locate(self, x: Tensor, framed: Tensor | None = None) -> Region:
        """Find the item in images `(B, 3, S, S)`.

        Args:
            framed: True for images `(B,)` that were already cropped to the item: their box is the whole image, and the
                finder only separates the item from the background.
        """
        config = self.config
        reduced = self._reduced(x)
        found = self.finder(reduced)
        mask, confidence = torch.sigmoid(found.mask), torch.sigmoid(found.quality)
        weight = ((confidence - config.doubt) / (config.trust - config.doubt)).clamp(0.0, 1.0)
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=x.device, dtype=x.dtype)
        box = torch.lerp(whole, square_around(mask, config.margin), weight[:, None])
        if framed is not None:
            box = torch.where(framed[:, None], whole, box)
        paint = config.paint * weight
        if config.spare_plain:
            paint = paint * (1.0 - plainness(reduced))
        return Region(box, mask, confidence, weight, paint)

    def _reduced(self, x: Tensor) -> Tensor:
        """Images at the size of the finder, by averages of whole blocks if possible, which is cheapest."""
        size = self.finder.config.size
        if x.shape[2] % size:
            return resize(x, size)
        return nn.functional.avg_pool2d(x, x.shape[2] // size)

    def cut_out(self, x: Tensor, region: Region) -> Tensor:
        """Input of the inner encoder `(B, 3, s, s)` in [0, 1], with s its side."""
        config, size = self.config, self.inner_size
        picture = crop(x, region.box, size)
        if config.paint == 0:
            return picture
        if config.passes == 2:
            closer = self.finder(crop(x, region.box, self.finder.config.size))
            mask = resize(torch.sigmoid(closer.mask), size)
        else:
            mask = crop(region.mask, region.box, size)
        mask = mask * within(region.box, size)  # nothing beyond the image belongs to the item
        hidden = region.paint[:, None, None, None] * (1.0 - mask)
        return picture + hidden * (WHITE - picture)

    def _reconstruct(self, x: Tensor) -> Tensor:
        """The reconstruction of the item at its position, on white `(B, 3, S, S)`."""
        region = self.locate(x)
        item = self.encoder.reconstruct(self.cut_out(x, region))
        return put_back(item, region.box, self.config.size)

    def _log_likelihood(self, x: Tensor) -> Likelihood:
        """Log-likelihood of the cut-out in nats per image; it has fewer values than the image."""
        cut_out = torch.round(self.cut_out(x, self.locate(x)) * 255.0) / 255.0
        likelihood: Likelihood = self.encoder.log_likelihood(cut_out)
        return likelihood


def put_back(items: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Place images `(B, C, s, s)` into their boxes `(B, 4)` of white images `(B, C, size, size)`."""
    centre, half = 0.5 * (boxes[:, :2] + boxes[:, 2:]), 0.5 * (boxes[:, 2:] - boxes[:, :2])
    shift = (1.0 - 2.0 * centre) / (2.0 * half)
    zero = torch.zeros_like(shift[:, 0])
    maps = torch.stack([0.5 / half[:, 0], zero, shift[:, 0], zero, 0.5 / half[:, 1], shift[:, 1]], dim=1)
    grid = nn.functional.affine_grid(maps.reshape(-1, 2, 3), [len(items), 1, size, size], align_corners=False)
    placed = nn.functional.grid_sample(items, grid, padding_mode="border", align_corners=False)
    inside = (grid.abs() <= 1.0).all(dim=3)[:, None]
    return torch.where(inside, placed, WHITE)


def within(boxes: Tensor, size: int) -> Tensor:
    """1 for the pixels `(B, 1, size, size)` of boxes `(B, 4)` that lie inside of the image, 0 for the others."""
    positions = (torch.arange(size, device=boxes.device) + 0.5) / size
    across, down = (boxes[:, a, None] + (boxes[:, a + 2] - boxes[:, a])[:, None] * positions for a in (0, 1))
    inside = [((line >= 0.0) & (line <= 1.0)).to(boxes.dtype) for line in (across, down)]
    return (inside[1][:, :, None] * inside[0][:, None, :])[:, None]


def plainness(x: Tensor) -> Tensor:
    """Plainness of the background of images `(B, C, h, w)`, from 0 to 1 `(B,)`, judged by their rims."""
    sides = [x[:, :, :RIM], x[:, :, -RIM:], x[:, :, RIM:-RIM, :RIM], x[:, :, RIM:-RIM, -RIM:]]
    rim = torch.cat([side.flatten(2) for side in sides], dim=2)
    some = rim[:, :, ::SPARSE].sort(dim=2).values
    median = some[:, :, some.shape[2] // 2]
    alike = ((rim - median[:, :, None]).abs().amax(dim=1) < ALIKE).to(x.dtype).mean(dim=1)
    return ((alike - PLAIN[0]) / (PLAIN[1] - PLAIN[0])).clamp(0.0, 1.0)


def square_around(mask: Tensor, margin: float) -> Tensor:
    """The square around the mass of masks `(B, 1, h, w)` in [0, 1]: left, top, right, bottom as fractions `(B, 4)`.

    Its side is the longer side of the mass' span, plus `margin` of it on each side. It may extend beyond the image, so
    that an item near the edge, or as large as the image, is centred and has the same size as any other.
    """
    mass = torch.where(mask > FAINT, mask, 0.0)[:, 0] + TINY
    left, right = _span(mass.sum(dim=1))
    top, bottom = _span(mass.sum(dim=2))
    half = torch.maximum(right - left, bottom - top) * (0.5 + margin)
    x, y = 0.5 * (left + right), 0.5 * (top + bottom)
    return torch.stack([x - half, y - half, x + half, y + half], dim=1)


def _span(mass: Tensor) -> tuple[Tensor, Tensor]:
    """Start and end of the mass `(B, n)` along a line, as fractions of the line, each `(B,)`.

    A fraction `TAIL` of the mass lies beyond each end; the span of the rest is extended as if the mass were uniform.
    """
    cells = mass.shape[1]
    below = torch.cumsum(mass, dim=1) / mass.sum(dim=1, keepdim=True)  # at the far edge of each cell
    start, stop = _position(below, mass, TAIL), _position(below, mass, 1.0 - TAIL)
    longer = 0.5 * (stop - start) * (1.0 / (1.0 - 2.0 * TAIL) - 1.0)
    return (start - longer).clamp(min=0.0) / cells, (stop + longer).clamp(max=float(cells)) / cells


def _position(below: Tensor, mass: Tensor, share: float) -> Tensor:
    """Position `(B,)` in cells, with a fraction, up to which a given share of the mass lies."""
    before = below < share
    whole = before.sum(dim=1)
    fractions = mass / mass.sum(dim=1, keepdim=True)
    reached = torch.where(before, fractions, 0.0).sum(dim=1)
    here = torch.gather(fractions, 1, whole.clamp(max=mass.shape[1] - 1)[:, None])[:, 0]
    return whole + ((share - reached) / here.clamp(min=TINY)).clamp(0.0, 1.0)
