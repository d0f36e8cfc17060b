"""Swap sets from a catalogue's photos, and from the synthetic shop, whose photos have known factors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from indexer.errors import InvalidRequestError
from indexer.measures.ground_truth import Truth, other_view
from indexer.swaps.swap_set import (
    BANK_SEED,
    Bank,
    Cut,
    Factorial,
    FactorPhotos,
    Pixels,
    Shots,
    SwapSet,
    assemble,
    swap_background,
)
from training.data.backgrounds import Folder, paint_out
from training.data.dataset import FAILED, Dataset, load_dataset
from training.data.masks import SOURCES
from training.data.sources import MaskSource, SourceImage
from training.data.studio import Item, Photo, Scene, Stock, draw_background, make_item, random_scene, render
from training.data.studio.scenes import BACKGROUNDS
from training.preprocessing import Preprocessing

SIDE = 128  # side of the pictures in pixels, before an encoder's own preprocessing
ENOUGH_ITEMS = 20  # with several usable photos; with fewer, views of single photos are used
LEAST_ITEMS = 8
POSES, LIGHTS, FACTORIAL_ITEMS, FACTORIAL_BACKGROUNDS = 3, 3, 16, 4
FACTOR_ITEMS, FACTOR_SCENES = 160, 4
Advance = Callable[[int], None]


def photo_set(
    name: str,
    images: Sequence[SourceImage],
    *,
    backgrounds: Path | None = None,
    per_item: int = 5,
    limit: int = 500,
    masks: Sequence[MaskSource] = SOURCES,
    seed: int = 0,
    side: int = SIDE,
    processes: int | None = None,
) -> SwapSet:
    """A swap set from a catalogue's photos; photos without a usable mask are left out and counted.

    If 20 or more items have two usable photos, these are gallery picture and query. Otherwise, each item's query is a
    random view of its photo.

    Args:
        backgrounds: folder of photos to use as backgrounds; by default the synthetic shop's bank of textures and rooms.
        per_item: backgrounds that every item is placed on, 2 or more.
        limit: maximum number of items, chosen with the seed.
        masks: sources of masks, best first; with `swap_set.GIVEN` no mask is found automatically.

    Raises:
        InvalidRequestError: fewer than 8 items can be cut out.
        SourceError: no photo can be read, or no background.
    """
    if not images:
        raise InvalidRequestError("data", f"{name}: contains no photos; give a folder or manifest with some")
    folder = Folder(backgrounds) if backgrounds is not None else None
    dataset = load_dataset(
        choose(images, limit, seed), Preprocessing(side, 3, "stretch"), masks=tuple(masks), processes=processes
    )
    by_item: dict[str, list[int]] = {}
    for position, source in enumerate(dataset.mask_sources):
        if source != FAILED:
            by_item.setdefault(dataset.item_ids[position], []).append(position)
    usable = usable_items(name, dataset, by_item)
    chosen = [positions[: 2 if usable.truth == "photos" else 1] for positions in usable.positions.values()]
    shots = _from_pairs(dataset, chosen) if usable.truth == "photos" else _from_views(dataset, chosen, seed)
    bank = Bank.of_folder(folder, per_item, side, seed) if folder else Bank.drawn(per_item, side)
    sources = Counter(dataset.mask_sources[position] for positions in chosen for position in positions)
    total = len(dataset.mask_sources)
    cut = Cut(total - dataset.mask_sources.count(FAILED), total)
    return assemble(name, usable.truth, shots, bank, seed, left_out=usable.left_out, mask_sources=sources, cut=cut)


class UsableItems(NamedTuple):
    """Items that can be cut out, with the positions of their usable photos in a dataset."""

    truth: Truth
    positions: dict[str, list[int]]
    left_out: Counter[str]


def usable_items(name: str, dataset: Dataset, positions: Mapping[str, list[int]]) -> UsableItems:
    """Choose the items of a set: those with several usable photos if there are 20, otherwise all usable ones.

    Args:
        positions: positions of each item's photos with a usable mask; may be empty.

    Raises:
        InvalidRequestError: fewer than 8 items can be cut out.
    """
    usable = {item: found for item, found in positions.items() if found}
    several = {item: found for item, found in usable.items() if len(found) > 1}
    truth: Truth = "photos" if len(several) >= ENOUGH_ITEMS else "views"
    chosen = several if truth == "photos" else usable
    left_out = Counter({
        "photo cannot be read": len(dataset.skipped),
        "photo without a usable mask": dataset.mask_sources.count(FAILED),
        "item with a single usable photo": len(usable) - len(chosen),
    })  # fmt: skip
    if len(chosen) < LEAST_ITEMS:
        raise InvalidRequestError(
            "data",
            f"{name}: {len(chosen)} items can be cut out of their photos, {LEAST_ITEMS} are needed; add items, give "
            f"masks in a column `mask`, or take photos on plain backgrounds ({_counts_text(left_out)})",
        )
    return UsableItems(truth, chosen, +left_out)


def _counts_text(counts: Counter[str]) -> str:
    return ", ".join(f"{count} times {reason}" for reason, count in (+counts).items()) or "nothing was left out"


def choose(images: Sequence[SourceImage], limit: int, seed: int, *, photos: int = 3) -> list[SourceImage]:
    """Up to `photos` photos of each of `limit` random items; of items with several photos, if there are enough."""
    by_item: dict[str, list[SourceImage]] = {}
    for image in images:
        by_item.setdefault(image.item_id, []).append(image)
    several = sorted(name for name, found in by_item.items() if len(found) > 1)
    names = several if len(several) >= ENOUGH_ITEMS else sorted(by_item)
    picked = [names[place] for place in np.random.default_rng(seed).permutation(len(names))[:limit]]
    return [image for name in sorted(picked) for image in by_item[name][:photos]]


def _from_pairs(dataset: Dataset, pairs: Sequence[Sequence[int]]) -> Shots:
    images, masks = upright(dataset)
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    return _shots(dataset, first, (images, masks), (images[second], masks[second]))


def _from_views(dataset: Dataset, chosen: Sequence[Sequence[int]], seed: int) -> Shots:
    images, masks = upright(dataset)
    first = [places[0] for places in chosen]
    rng = np.random.default_rng([seed, 5])
    views = [other_view(rng, images[place], masks[place]) for place in first]
    query, query_masks = (np.stack([np.asarray(view[part]) for view in views]) for part in (0, 1))
    return _shots(dataset, first, (images, masks), (query, query_masks))


def _shots(
    dataset: Dataset, first: Sequence[int], photos: tuple[Pixels, Pixels], queries: tuple[Pixels, Pixels]
) -> Shots:
    """Shots of the photos at the positions `first`, with queries that are used as they are."""
    images, masks = photos
    behind = [paint_out(images[place], masks[place]) for place in first]
    categories = [dataset.attributes[place].get("category") for place in first]
    items = [dataset.item_ids[place] for place in first]
    return Shots(items, categories, images[first], masks[first], *queries, queries[0], behind)


def upright(dataset: Dataset) -> tuple[Pixels, Pixels]:
    """Images `(N, S, S, 3)` and masks `(N, S, S)`."""
    if dataset.masks is None:
        raise ValueError("the photos were read without masks")
    return np.ascontiguousarray(dataset.images.transpose(0, 2, 3, 1)), dataset.masks


def studio_set(
    stock: Stock,
    items: int,
    *,
    backgrounds: Path | None = None,
    per_item: int = 5,
    seed: int = BANK_SEED,
    side: int = SIDE,
    factors: bool = True,
    advance: Advance = lambda count: None,
) -> SwapSet:
    """A swap set of drawn items: gallery picture and query differ in pose and light, and share a background.

    Args:
        backgrounds: folder of photos to use as backgrounds; by default textures and rooms from the seed's bank.
        factors: also draw pictures with known item, background, pose and light.
        advance: called with the number of photos drawn since the last call.
    """
    if items < LEAST_ITEMS:
        raise InvalidRequestError("items", f"items must be at least {LEAST_ITEMS}, not {items}")
    bank = (  # reports a missing folder before the items are drawn
        Bank.of_folder(Folder(backgrounds), per_item, side, seed) if backgrounds else Bank.drawn(per_item, side, seed)
    )
    drawn = [make_item(seed, number, stock) for number in range(items)]
    shots = _studio_shots(drawn, bank, seed, side, advance)
    return assemble(
        f"studio {stock}, {items} items, seed {seed}",
        "photos",
        shots,
        bank,
        seed,
        mask_sources=Counter(column=2 * items),
        factorial=_factorial(drawn[:FACTORIAL_ITEMS], bank, seed, side, advance) if factors else None,
        factor_photos=_factor_photos(drawn[:FACTOR_ITEMS], bank, seed, side, advance) if factors else None,
    )


def _studio_shots(items: Sequence[Item], bank: Bank, seed: int, side: int, advance: Advance) -> Shots:
    """Each item in two scenes, on a background of its own that is not in the bank."""
    rng = np.random.default_rng([seed, 13])
    taken = {name.split()[-1] for name in bank.names}
    free = [number for number in range(BACKGROUNDS) if str(number) not in taken]
    behind = [_background(seed, int(number), side) for number in rng.choice(free, len(items))]
    photos: list[tuple[Photo, Photo]] = []
    for item in items:
        first, second = (render(item, _bare(random_scene(item, photo)), side) for photo in (0, 1))
        photos.append((first, second))
        advance(2)
    layers = [np.stack([pair[place].product for pair in photos]) for place in (0, 1)]
    masks = [np.stack([pair[place].mask for pair in photos]) for place in (0, 1)]
    below = np.stack(behind)
    pictures = [swap_background(layer, mask, below) for layer, mask in zip(layers, masks, strict=True)]
    names, categories = [item.item_id for item in items], list[str | None](item.category for item in items)
    return Shots(names, categories, pictures[0], masks[0], layers[1], masks[1], pictures[1], behind)


def _factorial(items: Sequence[Item], bank: Bank, seed: int, side: int, advance: Advance) -> Factorial:
    """Every item on every background, in every pose and light."""
    poses = [random_scene(items[0], 100 + number).pose for number in range(POSES)]
    lights = [random_scene(items[0], 200 + number).light for number in range(LIGHTS)]
    below = bank.pictures[:FACTORIAL_BACKGROUNDS]
    rows = []
    for item in items:
        shots = [[render(item, Scene(pose, light, 0, None), side) for light in lights] for pose in poses]
        advance(POSES * LIGHTS)
        rows.append(
            np.stack([[[swap_background(shot.product, shot.mask, b) for shot in row] for row in shots] for b in below])
        )
    return Factorial(("item", "background", "pose", "light"), np.stack(rows))


def _factor_photos(items: Sequence[Item], bank: Bank, seed: int, side: int, advance: Advance) -> FactorPhotos:
    """Photos in random scenes on random backgrounds of the bank."""
    rng = np.random.default_rng([seed, 17])
    pictures, rows = [], []
    for item in items:
        for number in range(FACTOR_SCENES):
            scene = _bare(random_scene(item, 300 + number))
            place = int(rng.integers(len(bank.names)))
            shot = render(item, scene, side)
            pictures.append(swap_background(shot.product, shot.mask, bank.pictures[place]))
            rows.append(_factors(item, scene, bank.names[place]))
            advance(1)
    known = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    varying = {name: values for name, values in known.items() if len(np.unique(values)) > 1}
    return FactorPhotos(np.stack(pictures), varying, [item.item_id for item in items for _ in range(FACTOR_SCENES)])


def _factors(item: Item, scene: Scene, background: str) -> dict[str, Any]:
    pose, light = scene.pose, scene.light
    return {
        "category": item.category, "colour": item.colour, "print": item.print, "background": background,
        "rotation": pose.rotation, "scale": pose.scale, "mirror": str(pose.mirror), "yaw": pose.yaw,
        "pitch": pose.pitch, "exposure": light.exposure, "warmth": light.warmth,
    }  # fmt: skip


def _bare(scene: Scene) -> Scene:
    """Without the person wearing the item, who would change together with the background."""
    return replace(scene, figure=None)


def _background(seed: int, number: int, side: int) -> Pixels:
    return np.clip(np.round(draw_background(seed, number, side)), 0, 255).astype(np.uint8)
