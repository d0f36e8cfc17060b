"""Detection of several items in one photo: `python benchmarks/several_items.py --cutouts DIR`.

Photos are composed of cut-outs (pictures with an alpha channel) from a folder: one at .3 to .8 of the side, two to four
at .2 to .5 with gaps between them, or two or three whose boxes may overlap slightly; on white, and on crops of the
pictures of `--backgrounds`. A region is correct if the intersection over union of its box and an item's box is at least
.5; each item counts once. `--held-out` selects, by file name, the third of the files that the shipped finder was not
trained on.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from pathlib import Path
from time import process_time

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.backgrounds import Folder
from training.data.item_finder import Prediction, finder_side, predict
from training.finder.cutouts import file_cutouts, gather
from training.finder.regions import ItemRegion, find_regions

SIDE = 192
Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]


class Photo:
    def __init__(self, ground: Pixels) -> None:
        self.pixels = ground.astype(np.float32)
        self.boxes: list[Box] = []

    def add(self, cutout: Pixels, rng: np.random.Generator, scales: tuple[float, float], gap: float) -> None:
        """Place a cut-out `(S, S, 4)` with a gap (as a share of the side) to the others, if there is space."""
        for _ in range(200):
            side = int(SIDE * np.exp(rng.uniform(*np.log(scales))))
            x, y = (int(place) for place in rng.integers(0, SIDE - side + 1, 2))
            small = cv2.resize(cutout, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
            cover = small[..., 3:] / 255.0
            rows, columns = np.nonzero(cover[..., 0] > 0.5)
            edges = (x + columns.min(), y + rows.min(), x + columns.max() + 1, y + rows.max() + 1)
            left, top, right, bottom = (float(edge) / SIDE for edge in edges)
            if all(
                left > b[2] + gap or b[0] > right + gap or top > b[3] + gap or b[1] > bottom + gap for b in self.boxes
            ):
                part = self.pixels[y : y + side, x : x + side]
                part[...] = part * (1.0 - cover) + small[..., :3] * cover
                self.boxes.append((left, top, right, bottom))
                return


def photos(
    cutouts: Pixels, folder: Folder | None, counts: list[int], number: int, scales: tuple[float, float], gap: float
) -> Iterator[tuple[Pixels, list[Box]]]:
    rng = np.random.default_rng([len(counts), folder is not None])
    for turn in range(number):
        ground = np.full((SIDE, SIDE, 3), 255.0) if folder is None else folder.draw(rng, SIDE)
        photo = Photo(np.clip(np.round(ground), 0, 255).astype(np.uint8))
        for row in rng.choice(len(cutouts), counts[turn % len(counts)], replace=False):
            photo.add(cutouts[row], rng, scales, gap)
        noisy = np.clip(np.round(photo.pixels + rng.normal(0.0, 3.0, photo.pixels.shape)), 0, 255).astype(np.uint8)
        side = finder_side()
        yield np.asarray(cv2.resize(noisy, (side, side), interpolation=cv2.INTER_AREA), np.uint8), photo.boxes


def iou(a: Box, b: Box) -> float:
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(across, 0.0) * max(down, 0.0)
    return both / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - both)


def right(found: list[ItemRegion], boxes: list[Box]) -> int:
    free, count = list(boxes), 0
    for region in found:
        best = max(free, key=lambda box: iou(region.box, box), default=None)
        if best is not None and iou(region.box, best) >= 0.5:
            free.remove(best)
            count += 1
    return count


def one_look(pixels: Pixels) -> list[ItemRegion]:
    """The regions of a single pass of the finder."""
    guesses = iter([predict(pixels)])
    nothing = Prediction(np.zeros((1, 1), np.float32), 0.0)
    return find_regions(pixels, lambda square: next(guesses, nothing))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cutouts", type=Path, required=True)
    parser.add_argument("--backgrounds", type=Path)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--photos", type=int, default=120, help="Photos of each set.")
    options = parser.parse_args()

    def wanted(name: str) -> bool:
        return not options.held_out or int(hashlib.sha256(name.encode()).hexdigest(), 16) % 3 == 0

    cutouts = gather(file_cutouts(options.cutouts, wanted)).items.transpose(0, 2, 3, 1)
    grounds = {"white": None} | ({} if options.backgrounds is None else {"photos": Folder(options.backgrounds)})
    kinds = {"one": ([1], (0.3, 0.8), 0.02), "two to four": ([2, 3, 4], (0.2, 0.5), 0.02),
             "touching": ([2, 3], (0.3, 0.45), -0.04)}  # fmt: skip
    print("| items | background | passes | recall | precision | core-ms |\n|---|---|---|---|---|---|")
    for kind, (counts, scales, gap) in kinds.items():
        for ground, folder in grounds.items():
            made = list(photos(cutouts, folder, counts, options.photos, scales, gap))
            for name, method in (("one", one_look), ("several", lambda pixels: find_regions(pixels, predict))):
                began = process_time()
                found = [method(pixels) for pixels, _ in made]
                spent = 1000.0 * (process_time() - began) / len(made)
                hits = sum(right(regions, boxes) for regions, (_, boxes) in zip(found, made, strict=True))
                recall = hits / sum(len(boxes) for _, boxes in made)
                precision = hits / max(1, sum(map(len, found)))
                print(f"| {kind} | {ground} | {name} | {recall:.3f} | {precision:.3f} | {spent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
