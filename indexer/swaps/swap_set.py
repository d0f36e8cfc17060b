"""Swap sets: items on other backgrounds, the pictures on which encoders are compared.

Each item has an original gallery picture and another original picture, the clean query. In addition: the query on each
of several backgrounds that all items share; the gallery picture on one of these backgrounds; and the query on the
backgrounds of two other gallery pictures, one of its own category and one of any. Masks are eroded by one pixel, so
that little of the old background remains. The backgrounds come from the numbered bank of the synthetic shop, on which
no shipped encoder was trained, or from a given folder, about which nothing is known. `indexer.swaps.sources` makes swap
sets from a catalogue's photos and from the synthetic shop.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from indexer.measures.ground_truth import Truth, products
from training.data.backgrounds import Folder
from training.data.sources import MaskSource
from training.data.studio import draw_background
from training.data.studio.scenes import BACKGROUNDS, background_kind

Pixels = NDArray[np.uint8]
BANK_SEED = 9001
BANK_KINDS = ("texture", "room")
GIVEN: tuple[MaskSource, ...] = ("column", "alpha")  # masks that come with the photos or are exact by construction
MaskKind = Literal["given", "found", "mixed"]


class Cut(NamedTuple):
    """How many of the photos have a usable mask, and can be used; all photos of drawn items have one."""

    cut: int
    of: int

    @property
    def left_out(self) -> float:
        """Share of the photos that no figure includes."""
        return 1 - self.cut / self.of if self.of else 0.0

    def to_json(self) -> dict[str, Any]:
        return {"photos_cut_out": self.cut, "photos": self.of, "share_left_out": self.left_out}


class Bank(NamedTuple):
    """The backgrounds that all items are placed on, `(B, S, S, 3)`, and their names."""

    pictures: Pixels
    names: list[str]

    @classmethod
    def drawn(cls, count: int, side: int, seed: int = BANK_SEED) -> Bank:
        """Alternating textures and rooms from the synthetic shop's numbered bank."""
        rng = np.random.default_rng([seed, 3])
        numbers = rng.permutation(BACKGROUNDS).tolist()
        of_kind = [[n for n in numbers if background_kind(seed, n) == kind] for kind in BANK_KINDS]
        chosen = [of_kind[turn % len(of_kind)][turn // len(of_kind)] for turn in range(count)]
        drawn = [_rounded(draw_background(seed, number, side)) for number in chosen]
        return cls(np.stack(drawn), [f"{background_kind(seed, number)} {number}" for number in chosen])

    @classmethod
    def of_folder(cls, folder: Folder, count: int, side: int, seed: int) -> Bank:
        """Random crops of the photos of a folder."""
        rng = np.random.default_rng([seed, 7])
        return cls(
            np.stack([_rounded(folder.draw(rng, side)) for _ in range(count)]),
            [f"photo {number + 1}" for number in range(count)],
        )

    @classmethod
    def of_each(cls, folder: Folder, count: int, side: int, seed: int) -> Bank:
        """Crops of as many different photos of a folder as possible; crops of one photo share a name."""
        drawn = folder.each(np.random.default_rng([seed, 7]), side, count)
        return cls(np.stack([_rounded(picture) for _, picture in drawn]), [name for name, _ in drawn])


@dataclass(frozen=True)
class Shots:
    """The material of a swap set: two pictures `(I, S, S, 3)` of each item, and their masks `(I, S, S)`.

    Args:
        query: the item layer of the second picture; `clean` is the original picture.
        behind: the background `(S, S, 3)` of each gallery picture without the item; None if unknown.
    """

    items: list[str]
    categories: list[str | None]
    gallery: Pixels
    gallery_masks: Pixels
    query: Pixels
    query_masks: Pixels
    clean: Pixels
    behind: Sequence[Pixels | None]


@dataclass(frozen=True)
class Donated:
    """Queries `(n, S, S, 3)` on the backgrounds of other gallery pictures, whose positions are `donors` `(n,)`."""

    pictures: Pixels
    donors: NDArray[np.intp]


@dataclass(frozen=True)
class CategoryBackgrounds:
    """Queries of the items at `rows` `(n,)` on backgrounds of their own category and of any; donors index the rows."""

    rows: NDArray[np.intp]
    same: Donated
    random: Donated


@dataclass(frozen=True)
class Factorial:
    """Pictures of every combination of factor values, `(items, n_2, ..., n_k, S, S, 3)`."""

    names: tuple[str, ...]
    pictures: Pixels


@dataclass(frozen=True)
class FactorPhotos:
    """Photos `(N, S, S, 3)` with known factors `(N,)` and items."""

    pictures: Pixels
    factors: Mapping[str, NDArray[Any]]
    items: list[str]


class _Contents(Protocol):
    """Properties shared by swap sets and gate sets."""

    @property
    def truth(self) -> Truth: ...

    @property
    def products(self) -> list[str]: ...

    @property
    def left_out(self) -> Counter[str]: ...

    @property
    def mask_sources(self) -> Counter[str]: ...

    def __len__(self) -> int: ...


def contents(made: _Contents) -> dict[str, Any]:
    """Counts that describe a set; part of its JSON."""
    return {
        "items": len(made),
        "products": len(set(made.products)),
        "truth": made.truth,
        "left_out": dict(made.left_out),
        "masks": dict(made.mask_sources),
    }


@dataclass(frozen=True)
class SwapSet:
    """Items on backgrounds; row i of each field belongs to item i.

    Args:
        truth: whether two pictures of an item are different photos, or views of one photo.
        products: ground truth: items with near-duplicate photos are one product.
        gallery, clean: original pictures `(I, S, S, 3)`; `clean` are the queries.
        swapped: `(I, B, S, S, 3)`, the queries on each of the `backgrounds`.
        lures: `(I, S, S, 3)`, the gallery pictures on the background with the index in `lure_backgrounds`.
        masks: masks of the clean pictures, `(I, S, S)`.
        left_out: unused photos and items, by reason.
        mask_sources: number of used photos by the source of their mask.
        cut: how many photos have a usable mask.
        layers: the queries' item layers, which `masks` cut out, `(I, S, S, 3)`.
        bank: the backgrounds `(B, S, S, 3)`.
    """

    name: str
    truth: Truth
    items: list[str]
    products: list[str]
    categories: list[str | None]
    gallery: Pixels
    clean: Pixels
    swapped: Pixels
    lures: Pixels
    lure_backgrounds: NDArray[np.intp]
    masks: Pixels
    backgrounds: list[str]
    by_category: CategoryBackgrounds | None
    left_out: Counter[str] = field(default_factory=Counter)
    mask_sources: Counter[str] = field(default_factory=Counter)
    factorial: Factorial | None = None
    factor_photos: FactorPhotos | None = None
    cut: Cut = Cut(0, 0)
    layers: Pixels | None = None
    bank: Pixels | None = None

    def __len__(self) -> int:
        return len(self.items)

    def to_json(self) -> dict[str, Any]:
        """A description of the set, without its pictures."""
        return {
            **contents(self),
            "backgrounds": self.backgrounds,
            "mask_kind": self.mask_kind,
            **self.cut.to_json(),
        }

    @property
    def mask_kind(self) -> MaskKind:
        """Whether masks were given with the photos (column, alpha channel, drawn), found automatically, or both."""
        given = sum(count for source, count in self.mask_sources.items() if source in GIVEN)
        return "given" if given == sum(self.mask_sources.values()) else "mixed" if given else "found"

    def masks_in_words(self) -> str:
        """The sources of the masks, and how many photos are left out without a usable one."""
        sources = ", ".join(f"{count} by {source}" for source, count in self.mask_sources.items())
        masks = f"masks {self.mask_kind}" + (f" ({sources})" if sources else "")
        missing = self.cut.of - self.cut.cut
        return (
            f"{masks}; {self.cut.left_out:.0%} of the photos left out ({missing} of {self.cut.of} could not be cut out)"
        )

    def leaks(self) -> dict[str, int]:
        """Counts of queries that are in the gallery, and of swapped queries that equal a clean one."""
        held, plain = ({_digest(picture) for picture in pictures} for pictures in (self.gallery, self.clean))
        swapped = [_digest(picture) for row in self.swapped for picture in row]
        return {
            "clean_queries_in_gallery": sum(_digest(picture) in held for picture in self.clean),
            "swapped_queries_in_gallery": sum(digest in held for digest in swapped),
            "swapped_queries_that_are_clean": sum(digest in plain for digest in swapped),
        }


def assemble(
    name: str,
    truth: Truth,
    shots: Shots,
    bank: Bank,
    seed: int,
    *,
    left_out: Counter[str] | None = None,
    mask_sources: Counter[str] | None = None,
    factorial: Factorial | None = None,
    factor_photos: FactorPhotos | None = None,
    cut: Cut | None = None,
) -> SwapSet:
    """Place the items of shots on the backgrounds of a bank, and on each other's backgrounds."""
    rng = np.random.default_rng([seed, 11])
    count = len(shots.items)
    swapped = np.stack([swap_background(shots.query, shots.query_masks, below) for below in bank.pictures], axis=1)
    lure_backgrounds = rng.permutation(np.arange(count) % len(bank.names))
    both = np.concatenate([shots.gallery, shots.clean])
    tied = products(shots.items * 2, both)[:count]
    names = np.unique(shots.items)
    return SwapSet(
        name=name,
        truth=truth,
        items=shots.items,
        products=[str(names[number]) for number in tied],
        categories=shots.categories,
        gallery=shots.gallery,
        clean=shots.clean,
        swapped=swapped,
        lures=swap_background(shots.gallery, shots.gallery_masks, bank.pictures[lure_backgrounds]),
        lure_backgrounds=lure_backgrounds,
        masks=shots.query_masks,
        backgrounds=bank.names,
        by_category=_on_each_other(shots, rng),
        left_out=left_out or Counter(),
        mask_sources=mask_sources or Counter(),
        factorial=factorial,
        factor_photos=factor_photos,
        cut=cut or Cut(2 * count, 2 * count),
        layers=shots.query,
        bank=bank.pictures,
    )


def swap_background(items: Pixels, masks: Pixels, backgrounds: Pixels) -> Pixels:
    """Items `(..., S, S, 3)` cut out by masks `(..., S, S)`, eroded by one pixel, on other backgrounds."""
    kernel = np.ones((3, 3), np.uint8)
    inner = np.stack([cv2.erode(mask, kernel) for mask in masks.reshape(-1, *masks.shape[-2:])]).reshape(masks.shape)
    weight = (inner / np.float32(255.0))[..., None]
    return _rounded(weight * items + (1 - weight) * backgrounds)


def _on_each_other(shots: Shots, rng: np.random.Generator) -> CategoryBackgrounds | None:
    """Queries on other items' backgrounds, in categories with four or more known backgrounds; None for one category.

    Four, because an item's own photo and its two donors are excluded from the search, and one relevant photo must
    remain.
    """
    known = [row for row, behind in enumerate(shots.behind) if behind is not None and shots.categories[row]]
    size = Counter(shots.categories[row] for row in known)
    rows = np.array([row for row in known if size[shots.categories[row]] > 3], dtype=np.intp)
    labels = np.array([shots.categories[row] for row in rows], dtype=np.str_)
    if len(set(labels.tolist())) < 2:
        return None
    same = np.array([rng.choice(np.flatnonzero((labels == label) & (np.arange(len(rows)) != place)))
                     for place, label in enumerate(labels)], dtype=np.intp)  # fmt: skip
    others = (np.arange(len(rows)) + rng.integers(1, len(rows), len(rows))) % len(rows)
    behind = np.stack([shots.behind[row] for row in rows])
    donated = [
        Donated(swap_background(shots.query[rows], shots.query_masks[rows], behind[donors]), donors.astype(np.intp))
        for donors in (same, others)
    ]
    return CategoryBackgrounds(rows, *donated)


def _rounded(values: NDArray[Any]) -> Pixels:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _digest(picture: Pixels) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).digest()
