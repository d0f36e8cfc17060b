"""What the gate judges encoders on: held-out items, seen several times clean, and on many backgrounds drawn anew.

As in `indexer.swaps.sources`, an item's first photo is what is searched and its second, cut out, the query on
other backgrounds; where fewer than 20 items have two usable photos the query is another view of the first. Unlike there

- every retraining draws its own backgrounds: textures and rooms of a bank with the run's seed, or parts of other photos
  of the folder that is named. No encoder trains on these: training draws rooms of other seeds.
- clean queries are all of an item's other photos, filled up to six by other views of them.
- pictures are made as they are needed, a block at a time, so that memory does not grow with backgrounds.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.errors import InvalidRequestError
from indexer.measures.ground_truth import Truth, other_view, products
from indexer.swaps.pictures import Bank, Pixels, composite, contents
from indexer.swaps.sources import ENOUGH_ITEMS, LEAST_ITEMS, SIDE, choose, counted, upright
from training.data.backgrounds import Folder
from training.data.dataset import FAILED, Dataset, load_dataset
from training.data.masks import SOURCES
from training.data.sources import SourceImage
from training.preprocessing import Preprocessing

LEAST_PHOTOS = 5  # of a folder of backgrounds
CLEAN_VIEWS = 6  # of an item, at least
MOST_PHOTOS = 7  # of an item
BLOCK = 64  # items put on a background at a time
FIRST_SEED = 2**30  # banks of these seeds are no sample shop's, and below those that training draws rooms of


class View(NamedTuple):
    """A photo of the dataset as it was taken (`variation` 0), or the n-th way to take it again."""

    photo: int
    variation: int


@dataclass(frozen=True)
class GateSet:
    """Items on backgrounds; row i of everything is of item i.

    Args:
        products: what is relevant to what: items that near-duplicate photos tie together are one product.
        gallery: `(I, S, S, 3)`. query, query_masks: what is put on the backgrounds of `bank`.
        views: of each item, its clean queries.
        photos: all photos of the items `(N, S, S, 3)`.
        left_out: photos and items that take no part, by reason. mask_sources: where the others' masks are from.
        seed: of the backgrounds and of other views.
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

    def to_json(self) -> dict[str, Any]:
        """What the set is of, without its pictures."""
        return {
            **contents(self),
            "backgrounds": self.bank.names,
            "background_seed": self.seed,
            "background_sha256": hashlib.sha256(self.bank.pictures.tobytes()).hexdigest(),
            "clean_views": round(float(np.mean([len(views) for views in self.views])), 2),
        }

    def clean(self) -> Iterator[tuple[NDArray[np.intp], Pixels]]:
        """The clean queries `(n, S, S, 3)`, with the rows `(n,)` of the items they show, in blocks."""
        for number in range(max(map(len, self.views))):
            rows = [row for row, views in enumerate(self.views) if number < len(views)]
            for start in range(0, len(rows), BLOCK):
                block = np.array(rows[start : start + BLOCK], dtype=np.intp)
                views = [self.views[row][number] for row in block]
                yield block, np.stack([_again(self.seed, view, self.photos[view.photo])[0] for view in views])

    def swapped(self, background: int) -> Iterator[Pixels]:
        """The queries on a background `(n, S, S, 3)`, in blocks of items."""
        for start in range(0, len(self), BLOCK):
            block = slice(start, start + BLOCK)
            yield composite(self.query[block], self.query_masks[block], self.bank.pictures[background])


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
    """Held-out items of a catalogue's photos, and backgrounds of the run's own seed.

    Args:
        backgrounds: folder of photos to put the items on; textures and rooms of the seed's bank without it.
        count: backgrounds that every item is put on.
        limit: most items, chosen by `seed`.

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
        left_out=+taken.left_out,
        mask_sources=Counter(
            dataset.mask_sources[place]
            for first, views in zip(taken.first, taken.views, strict=True)
            for place in {first, views[0].photo}
        ),
        seed=background_seed,
    )


def draw_bank(backgrounds: Path | None, count: int, side: int, seed: int) -> Bank:
    """The backgrounds of a run.

    Raises:
        InvalidRequestError: the folder has fewer than 5 photos: parts of the same few say nothing of others.
        SourceError: none of them can be read, or there is no such folder.
    """
    if backgrounds is None:
        return Bank.drawn(count, side, seed)
    bank = Bank.of_each(Folder(backgrounds), count, side, seed)
    if len(set(bank.names)) < LEAST_PHOTOS:
        raise InvalidRequestError(
            "backgrounds",
            f"{backgrounds} has {len(set(bank.names))} photos that can be read, the gate needs {LEAST_PHOTOS}, better "
            f"{count} or more; add photos, or leave --backgrounds out for drawn ones",
        )
    return bank


def background_seed(collection: str, number: int, seed: int) -> int:
    """The seed of a retraining's backgrounds: its own, and the same when it goes on after a kill."""
    digest = hashlib.sha256(f"{collection}\0{number}\0{seed}".encode()).digest()
    return FIRST_SEED + int.from_bytes(digest[:4], "big") % FIRST_SEED


class _Taken(NamedTuple):
    """The items that take part: where the photo that is searched for is, and their clean queries, the swapped first."""

    truth: Truth
    items: list[str]
    first: list[int]
    views: list[list[View]]
    left_out: Counter[str]


def _take(name: str, dataset: Dataset) -> _Taken:
    by_item = _places(dataset)
    usable = {item: [p for p in places if dataset.mask_sources[p] != FAILED] for item, places in by_item.items()}
    several = [item for item, places in usable.items() if len(places) > 1]
    truth: Truth = "photos" if len(several) >= ENOUGH_ITEMS else "views"
    items = several if truth == "photos" else [item for item, places in usable.items() if places]
    left_out = Counter({
        "photo cannot be read": len(dataset.skipped),
        "photo without a usable mask": dataset.mask_sources.count(FAILED),
        "item with a single usable photo": sum(map(bool, usable.values())) - len(items),
    })  # fmt: skip
    if len(items) < LEAST_ITEMS:
        raise InvalidRequestError(
            "data",
            f"{name}: {len(items)} items can be cut out of their photos, {LEAST_ITEMS} are needed; give more items, "
            f"name masks in a column `mask`, or take photos on plain backgrounds ({counted(left_out)})",
        )
    first = [usable[item][0] for item in items]
    if truth == "photos":
        views = [_views(by_item[item], usable[item]) for item in items]
    else:
        views = [[View(place, number) for number in range(1, 1 + CLEAN_VIEWS)] for place in first]
    return _Taken(truth, items, first, views, left_out)


def _places(dataset: Dataset) -> dict[str, list[int]]:
    """Where the photos of each item are; a photo that an item has twice counts once."""
    found: dict[str, list[int]] = {}
    seen: set[tuple[str, str]] = set()
    for place, (item, content) in enumerate(zip(dataset.item_ids, dataset.sha256, strict=True)):
        if (item, content) not in seen:
            found.setdefault(item, []).append(place)
            seen.add((item, content))
    return found


def _views(places: Sequence[int], usable: Sequence[int]) -> list[View]:
    """All photos but the gallery's; those with a mask first."""
    others = [*usable[1:], *(place for place in places if place not in usable)]
    again = (View(others[n % len(others)], 1 + n // len(others)) for n in range(CLEAN_VIEWS - len(others)))
    return [*(View(place, 0) for place in others), *again]


def _again(seed: int, view: View, photo: Pixels, mask: Pixels | None = None) -> tuple[Pixels, Pixels | None]:
    """A photo as a view has it, the same whenever it is asked for."""
    if view.variation == 0:
        return photo, mask
    return other_view(np.random.default_rng([seed, view.photo, view.variation]), photo, mask)


def _products(dataset: Dataset, pixels: Pixels, taken: _Taken) -> list[str]:
    shown = sorted({*taken.first, *(view.photo for views in taken.views for view in views)})
    tied = products([dataset.item_ids[place] for place in shown], pixels[shown])
    names = np.unique(np.asarray(taken.items, np.str_))
    return [str(names[tied[shown.index(place)]]) for place in taken.first]
