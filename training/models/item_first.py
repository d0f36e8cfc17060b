"""An encoder that finds the item first: locate it, look at it closely, and only then encode it.

A finder (`training.finder`) gives each pixel's probability m of being the item's, and the intersection over union that
it expects of that mask, which is its confidence c. From these follow

    box       the span of the item's mass, a little larger, as a square that keeps the item's proportions
    w         how far to go by them: 0 up to a confidence of `doubt`, 1 from `trust` on, linear between
    region    w box + (1 - w) whole picture
    seen      v x + (1 - v) neutral, v = 1 - p w (1 - m), of the region at the inner encoder's size, where p is `paint`;
              with `spare_plain` less on a background of one colour, where nothing has to go and errors of m would show

and the vector is the inner encoder's of what is `seen`. So a photo in which nothing is found is encoded as it is, and
one in which the item is plain to see is encoded as the item alone. With a share b of the whole picture (`beside`) it is

    z = (1 - b) u(seen) + b u(picture), brought to length 1, u being the inner encoder's unit vector

so that what is told by the whole (how an item is worn, what comes with it, what the finder missed) is not lost. As Wei
et al.: Selective Convolutional Descriptor Aggregation, 2017, https://arxiv.org/abs/1604.04994, keep what is inside of a
mask found without labels.

Differs from the paper: the picture is cut and masked before the encoder sees it, instead of its features after.
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
TAIL = 0.02  # share of the item's mass beyond each side of its span: stray cells do not stretch it
FAINT = 0.3  # cells below this probability have no mass
RIM = 3  # cells of the finder's picture along each side, of which a plain background has one colour
SPARSE = 7  # every seventh cell of the rim is enough for a median
ALIKE = 0.06  # most that a channel differs from the rim's median in what counts as the same colour
PLAIN = (0.75, 0.9)  # share of the rim in that colour from which a background begins to count as plain, and is
TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class ItemFirstConfig:
    """Configuration of `ItemFirst`.

    Args:
        size: side of the pictures; the item is cut out of them, so they are larger than the inner encoder's.
        channels: of the pictures; 3.
        finder: config of the finder without normalisation.
        encoder: the inner encoder.
        margin: around the item's span, in shares of it, on each side.
        doubt, trust: confidence up to which the whole picture counts, and from which on the item alone.
        paint: how white what is not the item's becomes, 0 to 1; 0 only crops.
        spare_plain: leave a background of one colour as it is.
        passes: 2 finds the item once more, in what the first pass cut out, for a finer mask.
        beside: share of the whole picture's vector beside the item's, 0 to below 1; above 0 the inner encoder runs
            twice, and its metric must be the cosine.
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
            raise ValueError(f"channels must be 3: the finder looks at colours, not {self.channels}")
        finder = FinderConfig(**self.finder)
        if finder.normalisation:
            raise ValueError("finder.normalisation must be false: the network that ships has it folded away")
        if self.size < finder.size:
            raise ValueError(f"size must be at least the finder's {finder.size} pixels, not {self.size}")
        if not 0 <= self.margin <= 1:
            raise ValueError(f"margin must be between 0 and 1, not {self.margin}")
        if not 0 <= self.doubt < self.trust <= 1:
            raise ValueError(f"doubt and trust must rise within [0, 1], not {self.doubt} and {self.trust}")
        if not 0 <= self.paint <= 1:
            raise ValueError(f"paint must be between 0 and 1, not {self.paint}")
        if self.passes not in (1, 2):
            raise ValueError(f"passes must be 1 or 2, not {self.passes}")
        if not 0 <= self.beside < 1:
            raise ValueError(f"beside must be at least 0 and below 1, not {self.beside}")
        if self.part.config.get("channels", 3) != 3:
            raise ValueError("encoder.channels must be 3, as the pictures have")

    @property
    def part(self) -> Part:
        """The inner encoder, parsed."""
        return Part.of(self.encoder)


class Region(NamedTuple):
    """What of each picture was used.

    Args:
        box: left, top, right, bottom in shares of the picture `(B, 4)`; may reach beyond [0, 1].
        mask: probability of each cell of the picture being the item's `(B, 1, h, h)`.
        confidence: the finder's, in [0, 1] `(B,)`.
        weight: how far the finder was followed, in [0, 1] `(B,)`.
        paint: how white what is not the item's becomes, in [0, 1] `(B,)`.
    """

    box: Tensor
    mask: Tensor
    confidence: Tensor
    weight: Tensor
    paint: Tensor


class ItemFirst(nn.Module):
    """A finder before an encoder; the search vector is the inner encoder's.

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
            raise ValueError(f"beside must be 0 with an inner encoder of metric {self.metric!r}: it adds unit vectors")
        # What the inner encoder can do besides, this one can do with what it sees of a picture.
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
        """To ONNX."""
        return bool(self.encoder.is_exportable)

    def embed(self, x: Tensor) -> Tensor:
        """Vectors `(B, dim)` of pictures `(B, 3, S, S)` in [0, 1]."""
        return self._vectors(x, self.locate(x))

    def embed_with_regions(self, x: Tensor, framed: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors, and what they are of: left, top, right, bottom in shares of the picture, confidence `(B, 5)`."""
        region = self.locate(x, framed)
        told = torch.cat([region.box.clamp(0.0, 1.0), region.confidence[:, None]], dim=1)
        return self._vectors(x, region), told

    def _vectors(self, x: Tensor, region: Region) -> Tensor:
        share = self.config.beside
        item: Tensor = self.encoder.embed(self.cut_out(x, region))
        if share == 0:
            return item
        whole = normalize(self.encoder.embed(resize(x, self.inner_size)), dim=1)
        return normalize(torch.lerp(normalize(item, dim=1), whole, share), dim=1)

    def locate(self, x: Tensor, framed: Tensor | None = None) -> Region:
        """Where the item is.

        Args:
            framed: True in pictures `(B,)` that somebody cut to the item already: their box is the whole picture, and
                the finder only tells the item from what is behind it.
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
        """Pictures at the finder's size; means of whole blocks of pixels are the cheapest way there."""
        size = self.finder.config.size
        if x.shape[2] % size:
            return resize(x, size)
        return nn.functional.avg_pool2d(x, x.shape[2] // size)

    def cut_out(self, x: Tensor, region: Region) -> Tensor:
        """What the inner encoder is given: `(B, 3, s, s)` in [0, 1], s its side."""
        config, size = self.config, self.inner_size
        picture = crop(x, region.box, size)
        if config.paint == 0:
            return picture
        if config.passes == 2:
            closer = self.finder(crop(x, region.box, self.finder.config.size))
            mask = resize(torch.sigmoid(closer.mask), size)
        else:
            mask = crop(region.mask, region.box, size)
        mask = mask * within(region.box, size)  # what is beyond the picture is not the item's
        hidden = region.paint[:, None, None, None] * (1.0 - mask)
        return picture + hidden * (WHITE - picture)

    def _reconstruct(self, x: Tensor) -> Tensor:
        """Pictures `(B, 3, S, S)` of what the latent holds: the item's reconstruction in its place, on white."""
        region = self.locate(x)
        item = self.encoder.reconstruct(self.cut_out(x, region))
        return put_back(item, region.box, self.config.size)

    def _log_likelihood(self, x: Tensor) -> Likelihood:
        """Nats of what the inner encoder sees of each picture, which has fewer values than the picture."""
        seen = torch.round(self.cut_out(x, self.locate(x)) * 255.0) / 255.0
        likelihood: Likelihood = self.encoder.log_likelihood(seen)
        return likelihood


def put_back(items: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Pictures `(B, C, s, s)` in their boxes `(B, 4)` of white ones `(B, C, size, size)`."""
    centre, half = 0.5 * (boxes[:, :2] + boxes[:, 2:]), 0.5 * (boxes[:, 2:] - boxes[:, :2])
    shift = (1.0 - 2.0 * centre) / (2.0 * half)
    zero = torch.zeros_like(shift[:, 0])
    maps = torch.stack([0.5 / half[:, 0], zero, shift[:, 0], zero, 0.5 / half[:, 1], shift[:, 1]], dim=1)
    grid = nn.functional.affine_grid(maps.reshape(-1, 2, 3), [len(items), 1, size, size], align_corners=False)
    placed = nn.functional.grid_sample(items, grid, padding_mode="border", align_corners=False)
    inside = (grid.abs() <= 1.0).all(dim=3)[:, None]
    return torch.where(inside, placed, WHITE)


def within(boxes: Tensor, size: int) -> Tensor:
    """1 where the pixels `(B, 1, size, size)` of boxes `(B, 4)` lie in the picture, 0 beyond it."""
    places = (torch.arange(size, device=boxes.device) + 0.5) / size
    across, down = (boxes[:, a, None] + (boxes[:, a + 2] - boxes[:, a])[:, None] * places for a in (0, 1))
    inside = [((line >= 0.0) & (line <= 1.0)).to(boxes.dtype) for line in (across, down)]
    return (inside[1][:, :, None] * inside[0][:, None, :])[:, None]


def plainness(x: Tensor) -> Tensor:
    """How surely each of the pictures `(B, C, h, w)` has a background of one colour, 0 to 1 `(B,)`, by its rim."""
    sides = [x[:, :, :RIM], x[:, :, -RIM:], x[:, :, RIM:-RIM, :RIM], x[:, :, RIM:-RIM, -RIM:]]
    rim = torch.cat([side.flatten(2) for side in sides], dim=2)
    some = rim[:, :, ::SPARSE].sort(dim=2).values
    median = some[:, :, some.shape[2] // 2]
    alike = ((rim - median[:, :, None]).abs().amax(dim=1) < ALIKE).to(x.dtype).mean(dim=1)
    return ((alike - PLAIN[0]) / (PLAIN[1] - PLAIN[0])).clamp(0.0, 1.0)


def square_around(mask: Tensor, margin: float) -> Tensor:
    """The square around the mass of masks `(B, 1, h, w)` in [0, 1]: left, top, right, bottom in shares `(B, 4)`.

    Its side is the longer one of the mass' span with `margin` of it more on each side. It may reach beyond the picture,
    so that an item near the edge, or as large as the picture, is seen in the middle and as large as any other.
    """
    mass = torch.where(mask > FAINT, mask, 0.0)[:, 0] + TINY
    left, right = _span(mass.sum(dim=1))
    top, bottom = _span(mass.sum(dim=2))
    half = torch.maximum(right - left, bottom - top) * (0.5 + margin)
    x, y = 0.5 * (left + right), 0.5 * (top + bottom)
    return torch.stack([x - half, y - half, x + half, y + half], dim=1)


def _span(mass: Tensor) -> tuple[Tensor, Tensor]:
    """Where the mass `(B, n)` along a line begins and ends, in shares of the line, each `(B,)`.

    `TAIL` of it lies beyond each end; the span of the rest is lengthened as if the mass were even.
    """
    cells = mass.shape[1]
    below = torch.cumsum(mass, dim=1) / mass.sum(dim=1, keepdim=True)  # at the far edge of each cell
    start, stop = _position(below, mass, TAIL), _position(below, mass, 1.0 - TAIL)
    longer = 0.5 * (stop - start) * (1.0 / (1.0 - 2.0 * TAIL) - 1.0)
    return (start - longer).clamp(min=0.0) / cells, (stop + longer).clamp(max=float(cells)) / cells


def _position(below: Tensor, mass: Tensor, share: float) -> Tensor:
    """Cells `(B,)`, with a fraction, up to which a share of the mass lies."""
    before = below < share
    whole = before.sum(dim=1)
    fractions = mass / mass.sum(dim=1, keepdim=True)
    reached = torch.where(before, fractions, 0.0).sum(dim=1)
    here = torch.gather(fractions, 1, whole.clamp(max=mass.shape[1] - 1)[:, None])[:, 0]
    return whole + ((share - reached) / here.clamp(min=TINY)).clamp(0.0, 1.0)
