"""The pictures of a comparison report: queries on other backgrounds, worst items and reconstructions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.evaluate.placement_tables import WORDS
from indexer.measures.robustness import MAP_AT_R
from indexer.reports.html import inline_jpeg, number, script_safe
from indexer.swaps.placement import GROUNDS
from indexer.swaps.swap_set import Pixels

if TYPE_CHECKING:
    from indexer.compare.results import Comparison, EncoderComparison

SIDE = 96  # side of a picture in pixels
GRID_ITEMS = 3
BACKGROUNDS = 8  # maximum number of backgrounds that items are shown on
WORST = 3  # items of each kind of failure
FOUND = 3  # results shown of each worst item
Mark = Literal["query", "right", "wrong", "plain"]


class Shown(NamedTuple):
    """A picture's index in the album, its description, and the style of its frame."""

    picture: int
    words: str
    mark: Mark = "plain"


class Line(NamedTuple):
    """A query on one background, and its first results."""

    background: str
    query: Shown
    results: list[Shown]


class Grid(NamedTuple):
    """An encoder's results for an item on some backgrounds; of all backgrounds, how many first results are right."""

    encoder: str
    lines: list[Line]
    right_firsts: int


class SwapItem(NamedTuple):
    """An item, its gallery picture, and the results of every encoder."""

    name: str
    category: str
    sought: Shown
    grids: list[Grid]


class WorstItem(NamedTuple):
    """An item on the background with its worst results: the gallery picture that was sought, and the results."""

    name: str
    figure: str
    background: str
    query: Shown
    sought: Shown
    found: list[Shown]


class Failures(NamedTuple):
    encoder: str
    fallen: list[WorstItem]
    moved: list[WorstItem]


class Decoded(NamedTuple):
    """An item on every background, and its reconstructions."""

    name: str
    inputs: list[Shown]
    outputs: list[Shown]


class Album:
    """Inline JPEGs, each stored once."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._sources: list[str] = []

    def add(self, picture: Pixels) -> int:
        """Add a picture `(H, W, 3)`; returns its index."""
        digest = hashlib.sha256(str(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).digest()
        if digest not in self._places:
            self._places[digest] = len(self._sources)
            self._sources.append(inline_jpeg(Image.fromarray(picture), SIDE))
        return self._places[digest]

    def to_script(self) -> str:
        return script_safe(json.dumps(self._sources))


class Pictures:
    """Collects the pictures of a comparison in an album."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.made = comparison.set
        self.album = Album()
        self._row_of: dict[str, int] = {}
        for row, product in enumerate(self.made.products):
            self._row_of.setdefault(product, row)

    def swap_items(self) -> list[SwapItem]:
        """The items whose swapped MAP@R differs most between encoders; ties by the largest loss."""
        encoders = list(self.comparison.encoders.values())
        swapped = np.stack([each.swap.swapped[MAP_AT_R] for each in encoders])
        fall = np.stack([each.swap.clean[MAP_AT_R] for each in encoders]).mean(axis=0) - swapped.mean(axis=0)
        order = np.lexsort((-fall, -swapped.std(axis=0).round(6)))
        rows = [self._row_of[encoders[0].swap.items[place]] for place in order[:GRID_ITEMS].tolist()]
        return [
            SwapItem(
                self.made.items[row],
                self.made.categories[row] or "",
                self._sought(row),
                [self._grid(each, row) for each in encoders],
            )
            for row in rows
        ]

    def _grid(self, encoder: EncoderComparison, row: int) -> Grid:
        lines = [
            Line(name, self._query(row, place), self._results(row, encoder.top[row, place].tolist()))
            for place, name in enumerate(self.made.backgrounds[:BACKGROUNDS])
        ]
        return Grid(encoder.name, lines, int(self._right(row, encoder.top[row, :, 0]).sum()))

    def failures(self) -> list[Failures]:
        """The items of each encoder with the largest loss of MAP@R, and with the largest displacement."""
        return [
            Failures(each.name, self._fallen(each), self._moved(each)) for each in self.comparison.encoders.values()
        ]

    def _fallen(self, encoder: EncoderComparison) -> list[WorstItem]:
        clean, swapped = encoder.swap.clean[MAP_AT_R], encoder.swap.swapped[MAP_AT_R]
        found = []
        for place in _largest(clean - swapped):
            row = self._row_of[encoder.swap.items[place]]
            hits = self._right(row, encoder.top[row]) / np.arange(1, encoder.top.shape[-1] + 1)
            figure = f"MAP@R {number(clean[place])} → {number(swapped[place])}"
            found.append(self._worst(encoder, row, int(hits.sum(axis=1).argmin()), figure))
        return found

    def _moved(self, encoder: EncoderComparison) -> list[WorstItem]:
        found = []
        for row in _largest(encoder.displacements):
            z = encoder.vectors[row].astype(np.float64)
            away = np.linalg.norm(z - z.mean(axis=0), axis=1)
            figure = f"displacement {number(encoder.displacements[row])}"
            found.append(self._worst(encoder, row, int(away.argmax()), figure))
        return found

    def _worst(self, encoder: EncoderComparison, row: int, background: int, figure: str) -> WorstItem:
        return WorstItem(
            self.made.items[row],
            figure,
            self.made.backgrounds[background],
            self._query(row, background),
            self._sought(row),
            self._results(row, encoder.top[row, background, :FOUND].tolist()),
        )

    def decoded(self) -> dict[str, list[Decoded]]:
        """Reconstructions of the first items by each encoder; empty without a decoder."""
        return {name: self._decoded(found.reconstructions) for name, found in self.comparison.encoders.items()}

    def _decoded(self, reconstructions: Pixels | None) -> list[Decoded]:
        made, items = self.made, []
        for row, outputs in enumerate(() if reconstructions is None else reconstructions):
            shown = [
                Shown(self.album.add(_upright(picture)), f"Reconstruction of {made.items[row]} on {name}")
                for picture, name in zip(outputs[:BACKGROUNDS], made.backgrounds[:BACKGROUNDS], strict=True)
            ]
            inputs = [self._query(row, place)._replace(mark="plain") for place in range(len(shown))]
            items.append(Decoded(made.items[row], inputs, shown))
        return items

    def _query(self, row: int, background: int) -> Shown:
        words = f"{self.made.items[row]} on {self.made.backgrounds[background]}"
        return Shown(self.album.add(self.made.swapped[row, background]), words, "query")

    def _sought(self, row: int) -> Shown:
        return Shown(self.album.add(self.made.gallery[row]), f"{self.made.items[row]} in the gallery")

    def _results(self, row: int, places: Iterable[int]) -> list[Shown]:
        shown = []
        for rank, place in enumerate(places, start=1):
            right = self.made.products[place] == self.made.products[row]
            words = f"Result {rank}, {'right' if right else 'wrong'}: {self.made.items[place]}"
            shown.append(Shown(self.album.add(self.made.gallery[place]), words, "right" if right else "wrong"))
        return shown

    def _right(self, row: int, places: NDArray[np.intp]) -> NDArray[np.bool_]:
        right: NDArray[np.bool_] = np.asarray(self.made.products)[places] == self.made.products[row]
        return right


def placed_pictures(comparison: Comparison, album: Album) -> list[list[Shown]]:
    """The placed queries of the first item by ground; empty without a placement test."""
    test = next((each.placement for each in comparison.encoders.values() if each.placement is not None), None)
    if test is None:
        return []
    name = comparison.set.items[int(test.queries.rows[0])]
    return [
        [
            Shown(album.add(picture), f"{name} {WORDS[ground]} at scale {each.scale:g}")
            for picture, each in zip(pictures, test.queries.placements[0], strict=True)
        ]
        for ground, pictures in zip(GROUNDS, test.queries.pictures(0), strict=True)
    ]


def _largest(values: NDArray[np.float64]) -> list[int]:
    """Positions of the largest positive values, largest first."""
    known = np.nan_to_num(values)
    order: list[int] = np.argsort(-known, kind="stable")[:WORST].tolist()
    return [place for place in order if known[place] > 0]


def _upright(picture: Pixels) -> Pixels:
    """`(H, W, 3)` of `(C, H, W)`."""
    upright = picture.transpose(1, 2, 0)
    return upright if upright.shape[2] == 3 else np.repeat(upright[..., :1], 3, axis=2)
