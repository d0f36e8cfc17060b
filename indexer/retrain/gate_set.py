"""The set on which the gate measures encoders: held-out items with several clean queries and many backgrounds.

As in `indexer.swaps.sources`, an item's first photo is in the gallery, and its second, cut out, is the query on other
backgrounds. If fewer than 20 items have two usable photos, the query is another view of the first photo. Differences:

- Each retraining draws its own backgrounds: textures and rooms from a bank with the run's seed, or crops of photos of a
  given folder. No encoder is trained on the drawn ones, because training draws rooms with other seeds.
- The clean queries are all of an item's other photos, with additional views of them if there are fewer than six.
- Pictures are composed on demand, one block at a time, so memory does not grow with the number of backgrounds.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.errors import InvalidRequestError
from indexer.measures.ground_truth import Truth, other_view, products
from indexer.retrain.decision import GateSetSummary
from indexer.swaps.sources import SIDE, choose, upright, usable_items
from indexer.swaps.swap_set import Bank, Pixels, contents, swap_background
from training.data.backgrounds import Folder
from training.data.dataset import FAILED, Dataset, load_dataset
from training.data.masks import SOURCES
from training.data.sources import SourceImage
from training.preprocessing import Preprocessing

LEAST_PHOTOS = 5  # in a folder of backgrounds
CLEAN_VIEWS = 6  # minimum number of clean queries of an item
MOST_PHOTOS = 7  # photos used of an item
BLOCK = 64  # items composed with a background at a time
FIRST_SEED = 2**30  # above the seeds of synthetic shops, below the seeds with which training draws rooms


class View(NamedTuple):
    """A photo of the dataset, original (`variation` 0) or transformed by the n-th random view."""

    photo: int
    variation: int


@dataclass(frozen=True)
class GateSet:
    """Held-out items and backgrounds; row i of each field belongs to item i.

    Args:
        products: ground truth: items with near-duplicate photos are one product.
        gallery: `(I, S, S, 3)`.
        query, query_masks: cut-outs that are placed on the backgrounds of `bank`, `(I, S, S, 3)` and `(I, S, S)`.
        views: the clean queries of each item.
        photos: all photos of the items `(N, S, S, 3)`.
        left_out: unused photos and items, by reason.
        mask_sources: number of used photos by the source of their mask.
        seed: random seed of the backgrounds and views.
    """

    truth: Truth
    items: list[str]
    products: list[str]
    gallery: Pixels
    query: Pixels
    query_masks: Pixels
    views: list[list[View]]
    photos: Pixels
    bank: Bank
    left_out: Counter[str]
    mask_sources: Counter[str]
    seed: int

    def __len__(self) -> int:
        return len(self.items)

    def summary(self) -> GateSetSummary:
        return GateSetSummary(
            **contents(self),
            backgrounds=self.bank.names,
            background_seed=self.seed,
            background_sha256=hashlib.sha256(self.bank.pictures.tobytes()).hexdigest(),
            clean_views=round(float(np.mean([len(views) for views in self.views])), 2),
        )

    def clean(self) -> Iterator[tuple[NDArray[np.intp], Pixels]]:
        """The clean queries in blocks: rows `(n,)` of their items, and pictures `(n, S, S, 3)`."""
        for number in range(max(map(len, self.views))):
            rows = [row for row, views in enumerate(self.views) if number < len(views)]
            for start in range(0, len(rows), BLOCK):
                block = np.array(rows[start : start + BLOCK], dtype=np.intp)
                views = [self.views[row][number] for row in block]
                yield block, np.stack([_again(self.seed, view, self.photos[view.photo])[0] for view in views])

    def swapped(self, background: int) -> Iterator[Pixels]:
        """The queries on one background `(n, S, S, 3)`, in blocks of items."""
        for start in range(0, len(self), BLOCK):
            block = slice(start, start + BLOCK)
            yield swap_background(self.query[block], self.query_masks[block], self.bank.pictures[background])


def gate_set(
    name: str,
    images: Sequence[SourceImage],
    *,
    backgrounds: Path | None = None,
    count: int = 20,
    background_seed: int = FIRST_SEED,
    limit: int = 500,
    seed: int = 0,
    side: int = SIDE,
    processes: int | None = None,
) -> GateSet:
    """Make the gate set from held-out photos of a catalogue.

    Args:
        backgrounds: folder of photos to use as backgrounds; by default textures and rooms drawn with `background_seed`.
        count: backgrounds that every item is placed on.
        limit: maximum number of items, chosen with `seed`.

    Raises:
        InvalidRequestError: fewer than 8 items can be cut out, or the folder has fewer than 5 photos.
        SourceError: no photo can be read, or no background.
    """
    bank = draw_bank(backgrounds, count, side, background_seed)
    chosen = choose(images, limit, seed, photos=MOST_PHOTOS)
    dataset = load_dataset(chosen, Preprocessing(side, 3, "stretch"), masks=SOURCES, processes=processes)
    taken = _take(name, dataset)
    pixels, masks = upright(dataset)
    again = [_again(background_seed, views[0], pixels[views[0].photo], masks[views[0].photo]) for views in taken.views]
    return GateSet(
        truth=taken.truth,
        items=taken.items,
        products=_products(dataset, pixels, taken),
        gallery=pixels[taken.first],
        query=np.stack([picture for picture, _ in again]),
        query_masks=np.stack([mask for _, mask in again if mask is not None]),
        views=taken.views,
        photos=pixels,
        bank=bank,
        left_out=taken.left_out,
        mask_sources=Counter(
            dataset.mask_sources[place]
            for first, views in zip(taken.first, taken.views, strict=True)
            for place in {first, views[0].photo}
        ),
        seed=background_seed,
    )


def draw_bank(backgrounds: Path | None, count: int, side: int, seed: int) -> Bank:
    """The backgrounds of a retraining.

    Raises:
        InvalidRequestError: the folder has fewer than 5 photos, too few to represent other backgrounds.
        SourceError: none of them can be read, or the folder does not exist.
    """
    if backgrounds is None:
        return Bank.drawn(count, side, seed)
    bank = Bank.of_each(Folder(backgrounds), count, side, seed)
    if len(set(bank.names)) < LEAST_PHOTOS:
        raise InvalidRequestError(
            "backgrounds",
            f"{backgrounds} has {len(set(bank.names))} readable photos, but the gate needs {LEAST_PHOTOS}, better "
            f"{count} or more; add photos, or omit --backgrounds to use drawn ones",
        )
    return bank


def background_seed(collection: str, number: int, seed: int) -> int:
    """The seed of a retraining's backgrounds: different for each retraining, unchanged when it is resumed."""
    digest = hashlib.sha256(f"{collection}\0{number}\0{seed}".encode()).digest()
    return FIRST_SEED + int.from_bytes(digest[:4], "big") % FIRST_SEED


class _Taken(NamedTuple):
    """The items of the set, positions of their gallery photos, and their clean queries; the first is also swapped."""

    truth: Truth
    items: list[str]
    first: list[int]
    views: list[list[View]]
    left_out: Counter[str]


def _take(name: str, dataset: Dataset) -> _Taken:
    by_item = _places(dataset)
    usable = {item: [p for p in places if dataset.mask_sources[p] != FAILED] for item, places in by_item.items()}
    truth, positions, left_out = usable_items(name, dataset, usable)
    first = [found[0] for found in positions.values()]
    if truth == "photos":
        views = [_views(by_item[item], found) for item, found in positions.items()]
    else:
        views = [[View(place, number) for number in range(1, 1 + CLEAN_VIEWS)] for place in first]
    return _Taken(truth, list(positions), first, views, left_out)


def _places(dataset: Dataset) -> dict[str, list[int]]:
    """Positions of the photos of each item; a file that an item has twice counts once."""
    found: dict[str, list[int]] = {}
    seen: set[tuple[str, str]] = set()
    for place, (item, content) in enumerate(zip(dataset.item_ids, dataset.sha256, strict=True)):
        if (item, content) not in seen:
            found.setdefault(item, []).append(place)
            seen.add((item, content))
    return found


def _views(places: Sequence[int], usable: Sequence[int]) -> list[View]:
    """All photos except the gallery's, those with a mask first; then random views of them up to `CLEAN_VIEWS`."""
    others = [*usable[1:], *(place for place in places if place not in usable)]
    again = (View(others[n % len(others)], 1 + n // len(others)) for n in range(CLEAN_VIEWS - len(others)))
    return [*(View(place, 0) for place in others), *again]


def _again(seed: int, view: View, photo: Pixels, mask: Pixels | None = None) -> tuple[Pixels, Pixels | None]:
    """The picture (and mask) of a view; the same each time."""
    if view.variation == 0:
        return photo, mask
    return other_view(np.random.default_rng([seed, view.photo, view.variation]), photo, mask)


def _products(dataset: Dataset, pixels: Pixels, taken: _Taken) -> list[str]:
    shown = sorted({*taken.first, *(view.photo for views in taken.views for view in views)})
    tied = products([dataset.item_ids[place] for place in shown], pixels[shown])
    names = np.unique(np.asarray(taken.items, np.str_))
    return [str(names[tied[shown.index(place)]]) for place in taken.first]
