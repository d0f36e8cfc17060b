"""Retrieval on other backgrounds: `python benchmarks/background_swap.py [--encoder REF]...`.

Drawn sets: `--studio N` items of the sample shop, and `--solids N` of its solids, whose two photos are taken up to 120
degrees apart. The gallery has one photo of each item on white. The clean query is another photo (another pose and
light) on white. The swapped queries are the same photo, with the same pose and light, on `--per-item` other
backgrounds: textures and rooms from the shop's bank, and crops of photos if `--backgrounds DIR` is given.

Real set (`--items SOURCE --backgrounds DIR`): items cut out of their photos by `training.data.masks`. There is one
photo of each item. The gallery has the item on white; the clean query is a random view of it (slight changes of
rotation, size, place and light) on white; the swapped queries are that view on crops of the photos of DIR. Items
without a usable mask are left out and counted. Masks are eroded by one pixel, so that little of the old background
remains.

The baselines are raw pixels, HOG and a colour histogram. Prints a Markdown table; `--json FILE` writes all figures. The
program stops if a query is also in the gallery. Figures of encoders trained on the shop of the drawn set (its seed), on
these items or on these backgrounds are too optimistic.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from indexer.measures.ground_truth import other_view
from indexer.measures.robustness import LabelledVectors, SwapFigure, swap_test
from training.console import to_json
from training.data.backgrounds import Folder
from training.data.decode import ImageLimits, decode_image
from training.data.masks import SOURCES, MaskRequest
from training.data.sources import read_images
from training.data.studio import Stock, draw_background, make_item, random_scene, render
from training.data.studio.scenes import BACKGROUNDS, background_kind
from training.encoder import load_encoder
from training.errors import ImageError
from training.preprocessing import Preprocessing

SIDE = 160  # side of the pictures in pixels, before an encoder's own preprocessing
BASELINES = ("pixels", "hog")
SHOWN = ("recall@1", "recall@5")  # with one gallery photo per item, MAP@R equals recall@1
BINS = 8  # bins of the colour histogram for each channel
Pixels = NDArray[np.uint8]


@dataclass
class SwapSet:
    """Gallery and queries: pictures `(SIDE, SIDE, 3)` with their items."""

    name: str
    gallery: list[tuple[str, Pixels]] = field(default_factory=list)
    clean: list[tuple[str, Pixels]] = field(default_factory=list)
    swapped: list[tuple[str, Pixels]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)  # of the background of each swapped query
    left_out: Counter[str] = field(default_factory=Counter)

    def check_leaks(self) -> dict[str, int]:
        """Exit if a query is in the gallery, or if a swapped query equals a clean one."""
        held = {_digest(picture) for _, picture in self.gallery}
        clean = {_digest(picture) for _, picture in self.clean}
        found = {
            "clean_queries_in_gallery": sum(_digest(picture) in held for _, picture in self.clean),
            "swapped_queries_in_gallery": sum(_digest(picture) in held for _, picture in self.swapped),
            "swapped_queries_that_are_clean": sum(_digest(picture) in clean for _, picture in self.swapped),
        }
        if any(found.values()):
            raise SystemExit(f"{self.name}: the test leaks: {found}")
        return found


def drawn_set(stock: Stock, items: int, per_item: int, seed: int, folder: Folder | None) -> SwapSet:
    made = SwapSet(f"drawn {stock}, {items} items, seed {seed}")
    bank = {
        kind: [number for number in range(BACKGROUNDS) if background_kind(seed, number) == kind]
        for kind in ("texture", "room")
    }
    for number in range(items):
        item = make_item(seed, number, stock)
        rng = np.random.default_rng([seed, 7, number])
        for photo, pictures in enumerate((made.gallery, made.clean)):
            scene = random_scene(item, photo)
            shot = render(item, type(scene)(scene.pose, scene.light, scene.background_id, None), SIDE)
            pictures.append((item.item_id, blend(shot.product, shot.mask, white())))
        for turn in range(per_item):
            kind = [*bank, *(["photo"] if folder else [])][turn % (3 if folder else 2)]
            if kind == "photo" and folder is not None:
                background = folder.draw(rng, SIDE)
            else:
                background = draw_background(seed, int(rng.choice(bank[kind])), SIDE)
            made.swapped.append((item.item_id, blend(shot.product, shot.mask, background)))
            made.kinds.append(kind)
    return made


def real_set(source: Path, per_item: int, seed: int, folder: Folder, limit: int) -> SwapSet:
    images, problems = read_images(source)
    made = SwapSet(f"{source.name}, items of {len(images)} photos")
    made.left_out["row of the source"] += len(problems)
    square = Preprocessing(SIDE, 3, "pad")
    for image in np.random.default_rng(seed).permutation(np.array(images, dtype=object)):
        if len(made.gallery) == limit:
            break
        try:
            data = image.path.read_bytes()
            pixels = decode_image(data, at_least=2 * SIDE).pixels
        except (OSError, ImageError):
            made.left_out["unreadable"] += 1
            continue
        mask = MaskRequest(SOURCES, image.mask).find(data, pixels, square, ImageLimits())
        if mask is None or not mask.is_usable:
            made.left_out["mask " + ("missing" if mask is None else mask.source)] += 1
            continue
        item = np.ascontiguousarray(square.apply(pixels).transpose(1, 2, 0))
        cover = cv2.erode(mask.pixels, np.ones((3, 3), np.uint8))
        rng = np.random.default_rng([seed, 7, len(made.gallery)])
        made.gallery.append((image.item_id, blend(item, cover, white())))
        item, moved = other_view(rng, item, cover)
        cover = np.asarray(moved)
        made.clean.append((image.item_id, blend(item, cover, white())))
        for _ in range(per_item):
            made.swapped.append((image.item_id, blend(item, cover, folder.draw(rng, SIDE))))
            made.kinds.append("photo")
    return made


def blend(item: Pixels, mask: Pixels, background: NDArray[Any]) -> Pixels:
    weight = (mask / 255.0)[..., None]
    return np.clip(np.round(weight * item + (1 - weight) * background), 0, 255).astype(np.uint8)


def white() -> Pixels:
    return np.full((SIDE, SIDE, 3), 255, np.uint8)


def histogram(pictures: Sequence[Pixels]) -> NDArray[np.float32]:
    """Square roots of joint colour histograms; their inner products are Bhattacharyya coefficients."""
    rows = []
    for picture in pictures:
        places = (picture // (256 // BINS)).reshape(-1, 3).astype(np.int64) @ [BINS * BINS, BINS, 1]
        rows.append(np.sqrt(np.bincount(places, minlength=BINS**3) / len(places)))
    return np.array(rows, np.float32)


def embedder(ref: str) -> tuple[Callable[[Sequence[Pixels]], NDArray[np.float32]], Any]:
    encoder = load_encoder(ref)

    def embed(pictures: Sequence[Pixels]) -> NDArray[np.float32]:
        return np.concatenate([encoder.encode(batch).numpy() for batch in batches(pictures)])

    def batches(pictures: Sequence[Pixels]) -> Iterator[torch.Tensor]:
        for start in range(0, len(pictures), 128):
            yield torch.stack([encoder.prepare(picture) for picture in pictures[start : start + 128]])

    return embed, encoder.metric


def measure(made: SwapSet, refs: Sequence[str], seed: int) -> dict[str, dict[str, Any]]:
    results = {}
    for ref in [*refs, *BASELINES, "colour histogram"]:
        embed, metric = (histogram, "cosine") if ref == "colour histogram" else embedder(ref)
        sets = [
            LabelledVectors(embed([picture for _, picture in pictures]), [item for item, _ in pictures])
            for pictures in (made.gallery, made.clean, made.swapped)
        ]
        figures: dict[str, Any] = {"all": swap_test(*sets, metric, seed=seed).figures}
        for kind in sorted(set(made.kinds)):
            rows = [row for row, its in enumerate(made.kinds) if its == kind]
            some = LabelledVectors(sets[2].vectors[rows], [sets[2].items[row] for row in rows])
            if len(set(made.kinds)) > 1 and set(some.items) == set(sets[1].items):
                figures[kind] = swap_test(sets[0], sets[1], some, metric, seed=seed).figures
        results[ref] = figures
    return results


def table(made: SwapSet, results: dict[str, dict[str, dict[str, SwapFigure]]]) -> str:
    kinds = [kind for kind in next(iter(results.values())) if kind != "all"]
    head = ["encoder", "recall@1 clean", "swapped", "retention", "recall@5 clean", "swapped", "retention"]
    lines = [
        f"{made.name}: {len(made.gallery)} in the gallery, {len(made.swapped)} swapped queries; "
        f"left out: {dict(+made.left_out) or 'none'}",
        "",
        " | ".join(["", *head, *(f"recall@1 {kind}" for kind in kinds), ""]).strip(),
        "|---" * (len(head) + len(kinds)) + "|",
    ]
    for ref, figures in results.items():
        cells = [figures["all"][name] for name in SHOWN]
        row = [
            text for cell in cells for text in (cell.clean.to_text(), cell.swapped.to_text(), cell.retention.to_text())
        ]
        lines.append(
            " | ".join(
                ["", Path(ref).name, *row, *(figures[k]["recall@1"].swapped.to_text() for k in kinds), ""]
            ).strip()
        )
    return "\n".join(lines)


def _digest(picture: Pixels) -> bytes:
    return hashlib.sha256(picture.tobytes()).digest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", action="append", default=[])
    parser.add_argument("--studio", type=int, default=300, metavar="N", help="Items of the sample shop; 0 to skip.")
    parser.add_argument("--solids", type=int, default=300, metavar="N", help="Items of the solids; 0 to skip.")
    parser.add_argument("--items", type=Path, help="SOURCE of the real set.")
    parser.add_argument("--limit", type=int, default=500, help="Maximum number of items of the real set.")
    parser.add_argument("--backgrounds", type=Path, help="Folder of photos to use as backgrounds.")
    parser.add_argument("--per-item", type=int, default=5)
    parser.add_argument("--seed", type=int, default=9001)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.items and not asked.backgrounds:
        parser.error("--items needs --backgrounds DIR")
    folder = Folder(asked.backgrounds) if asked.backgrounds else None
    stocks: dict[Stock, int] = {"shop": asked.studio, "solids": asked.solids}
    sets = [drawn_set(stock, items, asked.per_item, asked.seed, folder) for stock, items in stocks.items() if items]
    if asked.items and folder:
        sets.append(real_set(asked.items, asked.per_item, asked.seed, folder, asked.limit))
    documents = []
    for made in sets:
        leaks = made.check_leaks()
        results = measure(made, asked.encoder or ["default"], asked.seed)
        print(table(made, results), end="\n\n")
        documents.append(
            {
                "set": made.name, "items": len(made.gallery), "swapped_queries": len(made.swapped),
                "backgrounds": dict(Counter(made.kinds)), "left_out": dict(+made.left_out), "leaks": leaks,
                "encoders": {
                    ref: {kind: {n: figure.to_json() for n, figure in f.items()} for kind, f in figures.items()}
                    for ref, figures in results.items()
                },
            }
        )  # fmt: skip
    if asked.json:
        asked.json.write_text(to_json(documents) + "\n")


if __name__ == "__main__":
    main()
