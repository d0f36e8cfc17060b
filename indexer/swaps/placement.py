"""Recall by the item's scale and place: items at any position in the frame, compared with large, centred items.

The gallery is unchanged. A query is an item cut out of another picture of it and placed in an empty frame, the
*ground*: white, or one background of a bank (the same one for all queries of an item). Its *scale* is the longer side
of its bounding box divided by the frame's side. Its *place* is the position of the box, as a share of the free space.
The item is always complete.

- middle: scale 1, centred. The reference.
- anywhere: scales .7, .5 and .3, uniformly random places. The free space is divided into 3 x 3 cells. At each scale,
  each item is placed once in the centre cell, once in one of the four edge cells and once in one of the four corner
  cells: the cell is drawn without replacement over the scales, the place uniformly within the cell. The three kinds of
  cells are weighted 1/9, 4/9 and 4/9.
- by scale, by place: the same for one scale, and for one kind of cell.
- retention: anywhere / middle, on the same ground and for the same items.

Intervals are over items. Differences between encoders are paired on the same queries, with Holm's correction over
grounds and metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from indexer.measures.metrics import Bootstrap, Interval, PerQuery
from indexer.measures.robustness import LabelledVectors, query_metrics
from indexer.measures.significance import Paired, holm, paired_test
from indexer.vectors import Floats
from training.reference import Metric

if TYPE_CHECKING:
    from indexer.swaps.swap_set import SwapSet

Pixels = NDArray[np.uint8]
Ground = Literal["white", "other"]
Kind = Literal["centre", "edge", "corner"]
GROUNDS: tuple[Ground, ...] = get_args(Ground)
KINDS: tuple[Kind, ...] = get_args(Kind)
SCALES = (0.7, 0.5, 0.3)
CELLS: Mapping[Kind, tuple[tuple[int, int], ...]] = {  # column and row of a 3 x 3 grid
    "centre": ((1, 1),),
    "edge": ((1, 0), (0, 1), (2, 1), (1, 2)),
    "corner": ((0, 0), (2, 0), (0, 2), (2, 2)),
}
WEIGHTS = np.array([len(CELLS[kind]) / 9 for kind in KINDS])
PER_GROUND = 1 + len(SCALES) * len(KINDS)
MOST_ITEMS = 200  # 4,000 queries for each encoder
BLOCK = 16  # items whose pictures are in memory at a time: 16 MB at 128 pixels
OPAQUE = 128  # minimum coverage of a pixel that belongs to the item
EMPTY = "item without an inside"


class Placement(NamedTuple):
    """Scale in (0, 1], and the position of the item's box as shares of the free space; 0 is left or top."""

    scale: float
    x: float
    y: float


MIDDLE = Placement(1.0, 0.5, 0.5)


class CutOut(NamedTuple):
    """An item's bounding box: colours times coverage `(h, w, 3)` in 0..255, and coverage `(h, w)` in 0..1; float32."""

    colours: Floats
    coverage: Floats


def cut_out(picture: Pixels, mask: Pixels) -> CutOut | None:
    """Cut an item out of a picture `(S, S, 3)` by a mask, eroded by one pixel; None if nothing remains."""
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8))
    rows, columns = (np.flatnonzero((inner >= OPAQUE).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    coverage = (inner[box] / np.float32(255.0)).astype(np.float32)
    return CutOut(coverage[..., None] * picture[box], coverage)


def place(item: CutOut, background: Pixels, placement: Placement) -> Pixels:
    """The complete item in a frame `(S, S, 3)`; its longer side is `scale * S` pixels, rounded."""
    side = len(background)
    height, width = item.coverage.shape
    factor = placement.scale * side / max(height, width)
    size = tuple(min(side, max(1, round(length * factor))) for length in (width, height))
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    colours, coverage = (cv2.resize(layer, size, interpolation=interpolation) for layer in item)
    left, top = (round(share * (side - length)) for share, length in zip(placement[1:], size, strict=True))
    framed = background.copy()
    box = np.s_[top : top + size[1], left : left + size[0]]
    mixed = colours + (1 - coverage[..., None]) * background[box]
    framed[box] = np.clip(np.round(mixed), 0, 255).astype(np.uint8)
    return framed


def draw_placements(rng: np.random.Generator) -> list[Placement]:
    """Random placements of one item: the middle, then one in each kind of cell for each scale."""
    cells = {kind: rng.permutation(len(CELLS[kind])) for kind in KINDS}
    drawn = [MIDDLE]
    for turn, scale in enumerate(SCALES):
        for kind in KINDS:
            column, row = CELLS[kind][cells[kind][turn % len(CELLS[kind])]]
            x, y = (np.array([column, row]) + rng.random(2)) / 3
            drawn.append(Placement(scale, float(x), float(y)))
    return drawn


@dataclass(frozen=True)
class PlacedItems:
    """The queries: items cut out of pictures, and their placements.

    Args:
        rows: `(n,)` row of each item in the set it comes from.
        items: the item or product that each one shows.
        cut: `(n,)` cut-outs.
        placements: `PER_GROUND` placements of each item.
        backgrounds: `(B, S, S, 3)`.
        on: `(n,)` index of each item's background.
        left_out: unused pictures, by reason.
        touching: number of items that touch the frame of their photo and may be cropped.
    """

    rows: NDArray[np.intp]
    items: list[str]
    cut: list[CutOut]
    placements: list[list[Placement]]
    backgrounds: Pixels
    on: NDArray[np.intp]
    left_out: Counter[str] = field(default_factory=Counter)
    touching: int = 0

    def __len__(self) -> int:
        return len(self.items)

    def pictures(self, number: int) -> Pixels:
        """The pictures of one item, `(grounds, PER_GROUND, S, S, 3)`."""
        below = self.backgrounds[self.on[number]]
        grounds = {"white": np.full_like(below, 255), "other": below}
        return np.stack(
            [[place(self.cut[number], grounds[ground], each) for each in self.placements[number]] for ground in GROUNDS]
        )

    def blocks(self) -> Iterator[Pixels]:
        """The pictures in blocks of items, `(m, grounds, PER_GROUND, S, S, 3)`."""
        for start in range(0, len(self), BLOCK):
            yield np.stack([self.pictures(number) for number in range(start, min(start + BLOCK, len(self)))])


def place_items(
    pictures: Pixels,
    masks: Pixels,
    items: Sequence[str],
    backgrounds: Pixels,
    seed: int,
    *,
    limit: int = MOST_ITEMS,
    left_out: Counter[str] | None = None,
) -> PlacedItems:
    """Cut at most `limit` items out of pictures `(N, S, S, 3)` by masks `(N, S, S)`, and draw their placements.

    The placements of an item depend only on the seed and its row.
    """
    chosen = np.sort(np.random.default_rng([seed, 23]).permutation(len(items))[:limit])
    out, rows, cut, touching = Counter(left_out or {}), list[int](), list[CutOut](), 0
    for row in chosen.tolist():
        item = cut_out(pictures[row], masks[row])
        if item is None:
            out[EMPTY] += 1
            continue
        rows.append(row)
        cut.append(item)
        touching += _touches(masks[row])
    rngs = [np.random.default_rng([seed, 29, row]) for row in rows]
    on = np.random.default_rng([seed, 31]).permutation(len(items))[rows] % len(backgrounds)
    return PlacedItems(
        np.array(rows, np.intp),
        [items[row] for row in rows],
        cut,
        [draw_placements(rng) for rng in rngs],
        backgrounds,
        on.astype(np.intp),
        out,
        touching,
    )


def place_set(made: SwapSet, seed: int) -> PlacedItems | None:
    """The placed queries of a swap set; None if the set has no item layers or no bank."""
    if made.layers is None or made.bank is None:
        return None
    return place_items(made.layers, made.masks, made.products, made.bank, seed)


def _touches(mask: Pixels) -> bool:
    frame = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return any(bool((edge >= OPAQUE).any()) for edge in frame)


class PlacementFigures(NamedTuple):
    """The figures of one metric on one ground."""

    middle: Interval
    anywhere: Interval
    retention: Interval
    by_scale: dict[str, Interval]
    by_place: dict[str, Interval]

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name).to_json() for name in ("middle", "anywhere", "retention")},
            **{
                name: {key: interval.to_json() for key, interval in getattr(self, name).items()}
                for name in ("by_scale", "by_place")
            },
        }


@dataclass(frozen=True)
class PlacementTest:
    """Figures by ground and metric, and the values `(I,)` that `anywhere` is the mean of, in the order of `items`."""

    queries: PlacedItems
    items: list[str]
    figures: dict[Ground, dict[str, PlacementFigures]]
    anywhere: dict[Ground, PerQuery]
    versus: dict[str, Paired] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "items": len(self.queries),
            "left_out": dict(self.queries.left_out),
            "touching_the_frame": self.queries.touching,
            **{
                ground: {metric: figure.to_json() for metric, figure in of.items()}
                for ground, of in self.figures.items()
            },
            "difference_to_first": {name: paired.to_json() for name, paired in self.versus.items()},
        }


def placement_test(
    queries: PlacedItems,
    embed: Callable[[Pixels], Floats],
    score: Callable[[Floats, NDArray[np.intp]], PerQuery],
    *,
    base: PlacementTest | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> PlacementTest | None:
    """Measure retrieval with placed queries; None if there are none.

    Args:
        embed: maps pictures `(..., S, S, 3)` to vectors `(..., dim)`.
        score: maps query vectors `(Q, dim)` and the rows `(Q,)` of their items to metrics `(Q,)`.
        base: the result of the encoder to compare with, on the same queries.
    """
    if not len(queries):
        return None
    vectors = np.concatenate([embed(pictures) for pictures in queries.blocks()])
    shape = vectors.shape[:-1]
    found = score(vectors.reshape(-1, vectors.shape[-1]), np.repeat(queries.rows, shape[1] * shape[2]))
    names, item, counts = np.unique(np.asarray(queries.items, np.str_), return_inverse=True, return_counts=True)
    bootstrap = Bootstrap(names.tolist(), replicates=replicates, seed=seed)
    figures: dict[Ground, dict[str, PlacementFigures]] = {}
    anywhere: dict[Ground, PerQuery] = {}
    for place_of, ground in enumerate(GROUNDS):
        figures[ground], anywhere[ground] = {}, {}
        for metric, values in found.items():
            cells = np.zeros((len(names), PER_GROUND))
            np.add.at(cells, item, values.reshape(shape)[:, place_of])
            cells /= counts[:, None]
            figures[ground][metric], anywhere[ground][metric] = _summary(cells, bootstrap)
    test = PlacementTest(queries, names.tolist(), figures, anywhere)
    if base is None:
        return test
    return PlacementTest(queries, test.items, figures, anywhere, _versus(test, base, bootstrap, seed))


def search_placed(
    queries: PlacedItems,
    embed: Callable[[Pixels], Floats],
    gallery: LabelledVectors,
    metric: Metric,
    *,
    base: PlacementTest | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> PlacementTest | None:
    """`placement_test` against a gallery of the same items or products: recall@1 and MAP@R."""
    order = np.random.default_rng(seed).permutation(len(gallery.items))
    shown = dict(zip(queries.rows.tolist(), queries.items, strict=True))

    def score(vectors: Floats, rows: NDArray[np.intp]) -> PerQuery:
        return query_metrics(
            gallery, LabelledVectors(vectors, [shown[row] for row in rows.tolist()]), metric, order, (1,)
        )

    return placement_test(queries, embed, score, base=base, replicates=replicates, seed=seed)


def _summary(cells: NDArray[np.float64], bootstrap: Bootstrap) -> tuple[PlacementFigures, NDArray[np.float64]]:
    """Figures of values `(I, PER_GROUND)`, and each item's value for `anywhere` `(I,)`."""
    middle, grid = cells[:, 0], cells[:, 1:].reshape(-1, len(SCALES), len(KINDS))
    by_scale = grid @ WEIGHTS
    anywhere: NDArray[np.float64] = by_scale.mean(axis=1)
    of_scale = {f"{scale:g}": bootstrap.interval(by_scale[:, turn]) for turn, scale in enumerate(SCALES)}
    of_place: dict[str, Interval] = {
        kind: bootstrap.interval(grid[:, :, turn].mean(axis=1)) for turn, kind in enumerate(KINDS)
    }
    figures = PlacementFigures(
        bootstrap.interval(middle),
        bootstrap.interval(anywhere),
        bootstrap.ratio(anywhere, middle),
        of_scale,
        of_place,
    )
    return figures, anywhere


def _versus(test: PlacementTest, base: PlacementTest, bootstrap: Bootstrap, seed: int) -> dict[str, Paired]:
    if test.items != base.items:
        raise ValueError("differences need the same items; measure both encoders on the same queries")
    tests = {
        f"{metric} anywhere, {ground}": paired_test(values, base.anywhere[ground][metric], bootstrap, seed=seed)
        for ground in GROUNDS
        for metric, values in test.anywhere[ground].items()
    }
    adjusted = holm({name: each.p for name, each in tests.items()})
    return {name: Paired(each.difference, adjusted[name]) for name, each in tests.items()}
