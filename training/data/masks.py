"""Foreground masks of product photos: which pixels belong to the item.

The sources of a mask are tried in this order until one gives a usable mask:

* column: the `mask` file of the photo's row;
* alpha: the alpha channel of the photo's file;
* border: the pixels that differ from a nearly uniform border;
* finder: the prediction of the item finder (`training.data.item_finder`);
* grabcut: GrabCut, initialised with a frame instead of a user's box (Rother, Kolmogorov, Blake: "GrabCut": interactive
  foreground extraction using iterated graph cuts, 2004, https://doi.org/10.1145/1015706.1015720).

Border, finder and GrabCut work on small copies. A mask is usable if the item covers 3 % to 90 % of the photo and:

* border: 90 % of the frame has one colour, or one that changes slowly across the photo; most of the item is in one
  piece, it does not touch all four sides, and it differs clearly from its surroundings;
* finder: the network predicts an intersection over union (IoU) of at least 0.7 with the true mask, and most of the item
  is in one piece;
* grabcut: as for border, and two runs from different frames agree (IoU of at least 0.6).

Two other modules ask whether a background is plain, and neither needs a mask: `training.finder.regions` asks whether
anything is left of a whole image whose items are hidden, `training.models.item_first` weighs the rim of a batch in
torch, so that an exported graph can do it.

Differs from the paper: two runs of a few iterations without a user's corrections; no border matting.
Imports no torch: reading processes use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.decode import ImageLimits, decode_alpha, decode_image
from training.data.item_finder import find_item, refine
from training.data.sources import MaskSource
from training.errors import ImageError
from training.preprocessing import Preprocessing

SOURCES: tuple[MaskSource, ...] = get_args(MaskSource)

BORDER_SIDE, FINE_SIDE, CUT_SIDE = 128, 80, 56  # longest side in pixels of the small copies
MIN_SIDE = 8
AREA = (0.03, 0.90)  # share of the photo that the item covers
MIN_LARGEST_PIECE = 0.6  # minimum share of the item's pixels in its largest piece
MIN_UNIFORM = 0.9  # minimum share of the frame that has the background's colour
TOLERANCE, MAX_TOLERANCE = 7.0, 11.0  # Lab units by which a uniform background may vary: usually, and if it is noisy
MIN_CONTRAST = 10.0  # minimum distance in Lab units between the item and its surroundings
AGREEMENT = 0.6  # minimum IoU of two GrabCut runs
MIN_EXPECTED_IOU = 0.7  # minimum IoU that the finder predicts
ITERATIONS = 3
SHADE = 0.35  # weight of a difference in lightness that may be the item's shadow

Bits = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Mask:
    """Coverage by the item `(H, W)` uint8 (0 is background, 255 item), its source, and whether it is usable.

    Args:
        fault: why the mask is not usable; None if it is.
    """

    pixels: NDArray[np.uint8]
    source: MaskSource
    fault: str | None = None

    @property
    def is_usable(self) -> bool:
        return self.fault is None


class MaskRequest(NamedTuple):
    """How to find the mask of a photo, see `find_mask`; `column` is the mask file named in its row."""

    sources: tuple[MaskSource, ...] = SOURCES
    column: Path | None = None

    def find(
        self, data: bytes, pixels: NDArray[np.uint8], preprocessing: Preprocessing, limits: ImageLimits
    ) -> Mask | None:
        """The mask of a photo, preprocessed like the photo, from its file's bytes and decoded pixels; never raises."""
        try:
            alpha = decode_alpha(data) if "alpha" in self.sources else None
            column = self._read_column(limits) if "column" in self.sources else None
            found = find_mask(pixels, column=column, alpha=alpha, sources=self.sources)
        except (OSError, SyntaxError, ValueError, cv2.error):  # raised for damaged files that can still be decoded
            return None
        return None if found is None else replace(found, pixels=preprocessing.apply_to_mask(found.pixels))

    def _read_column(self, limits: ImageLimits) -> NDArray[np.uint8] | None:
        if self.column is None:
            return None
        try:
            limits.check_bytes(self.column.stat().st_size)
            decoded = decode_image(self.column.read_bytes(), limits=limits)
        except (ImageError, OSError):
            return None  # try the next source
        return np.asarray(decoded.pixels.max(axis=2), dtype=np.uint8)


def find_mask(
    pixels: NDArray[np.uint8],
    *,
    column: NDArray[np.uint8] | None = None,
    alpha: NDArray[np.uint8] | None = None,
    sources: Sequence[MaskSource] = SOURCES,
) -> Mask | None:
    """The first usable mask of a photo, otherwise the last unusable one; None if no source applies.

    A photo with a side of fewer than 8 pixels has no mask.

    Args:
        pixels: the photo `(H, W, 3)` uint8 sRGB.
        column: the mask named in its row, `(H', W')` uint8 of any size.
        alpha: the alpha channel of its file, `(H', W')` uint8 of any size.
        sources: the sources to try, in this order.
    """
    found: Mask | None = None
    if min(pixels.shape[:2]) < MIN_SIDE:
        return None
    for source in sources:
        if source == "column" or source == "alpha":
            given = column if source == "column" else alpha
            if given is None or (source == "alpha" and given.min() > 250):
                continue  # a fully opaque alpha channel carries no information
            found = given_mask(given, source, (pixels.shape[0], pixels.shape[1]))
        else:
            found = COMPUTED[source](pixels)
        if found.is_usable:
            return found
    return found


def given_mask(values: NDArray[np.uint8], source: MaskSource, shape: tuple[int, int]) -> Mask:
    """A mask from a file, resized to the photo's `(height, width)`."""
    resized = _resize(values, shape)
    return Mask(resized, source, _area_fault(resized > 127))


def border_mask(pixels: NDArray[np.uint8]) -> Mask:
    """The pixels that differ from a background whose colour is constant or changes slowly, as on a studio sweep."""
    shape = (pixels.shape[0], pixels.shape[1])
    lab = _lab(_shrink(pixels, BORDER_SIDE))
    away, spread = _from_background(lab)
    frame = _frame(away.shape, max(1, min(away.shape) // 40))
    limit = max(TOLERANCE, 3.0 * spread)
    if limit > MAX_TOLERANCE or float((away[frame] < limit).mean()) < MIN_UNIFORM:
        return Mask(np.zeros(shape, np.uint8), "border", "the border does not have one colour")
    found = _clean(away > limit)
    fault = _fault(found, lab)
    return Mask(_soften(found, shape), "border", fault)


def grabcut_mask(pixels: NDArray[np.uint8]) -> Mask:
    """The result of GrabCut with the frame of the photo as background and its middle as possible item."""
    shape = (pixels.shape[0], pixels.shape[1])
    small = np.ascontiguousarray(_shrink(pixels, CUT_SIDE))
    first, second = (_cut(small, inset) for inset in (0.04, 0.14))
    if first is None or second is None:
        return Mask(np.zeros(shape, np.uint8), "grabcut", "the photo has too few colours for GrabCut")
    either = int((first | second).sum())
    agreement = float((first & second).sum()) / either if either else 0.0
    fault = _fault(first, _lab(small))
    if fault is None and agreement < AGREEMENT:
        fault = f"two GrabCut runs agree only to {agreement:.2f}"
    return Mask(_soften(first, shape), "grabcut", fault)


def finder_mask(pixels: NDArray[np.uint8]) -> Mask:
    """The prediction of the shipped item finder, refined along the colours."""
    shape = (pixels.shape[0], pixels.shape[1])
    small = np.ascontiguousarray(_shrink(pixels, FINE_SIDE))
    guess = find_item(small)
    found = _clean(refine(small, guess.probability))
    fault = _area_fault(found) or _pieces_fault(found)
    if fault is None and guess.quality < MIN_EXPECTED_IOU:
        fault = f"the finder's predicted IoU is only {guess.quality:.2f}"
    return Mask(_soften(found, shape), "finder", fault)


COMPUTED: dict[MaskSource, Callable[[NDArray[np.uint8]], Mask]] = {
    "border": border_mask, "finder": finder_mask, "grabcut": grabcut_mask,
}  # fmt: skip


def _cut(small: NDArray[np.uint8], inset: float) -> Bits | None:
    height, width = small.shape[:2]
    down, across = max(1, round(inset * height)), max(1, round(inset * width))
    marks = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    marks[down:-down, across:-across] = cv2.GC_PR_FGD
    marks[_frame(marks.shape, 1)] = cv2.GC_BGD
    behind, item = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # the mixtures start from random means
    try:
        cv2.grabCut(small, marks, (0, 0, 0, 0), behind, item, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:
        return None
    return _clean((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD))


def _from_background(lab: Floats) -> tuple[Floats, float]:
    """Distance `(H, W)` of each pixel from the background estimated from the frame, and the variation of the frame.

    The background in Lab is linear in (1, x, y, x^2 + y^2) and fitted to the frame twice, then without outliers.
    """
    height, width = lab.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    terms = np.stack([np.ones_like(x), x, y, x * x + y * y], axis=-1)
    frame = _frame((height, width), max(1, min(height, width) // 40))
    known, colours = terms[frame], lab[frame]
    near = np.abs(colours - np.median(colours, axis=0)).sum(axis=1) < 40.0
    for _ in range(2):
        if near.sum() < 16:
            break
        plane, *_ = np.linalg.lstsq(known[near], colours[near], rcond=None)
        residual = np.sqrt(np.square(colours - known @ plane).sum(axis=1))
        near = residual < max(TOLERANCE, 2.5 * float(np.median(residual)))
    else:
        return _distance((lab - terms @ plane).astype(np.float32)), float(np.median(residual)) * 1.5
    return _distance((lab - np.median(colours, axis=0)).astype(np.float32)), 0.0


def _distance(off: Floats) -> Floats:
    """Euclidean distance in Lab, in which slightly darker pixels count less: most of them are the item's shadow."""
    light = off[..., 0]
    shade = np.where((light < 0) & (light > -30), SHADE, 1.0)
    away: Floats = np.sqrt(np.square(light * shade) + np.square(off[..., 1:]).sum(axis=-1)).astype(np.float32)
    return away


def _clean(found: Bits) -> Bits:
    """Remove specks and small pieces, close gaps and fill small holes."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    bits = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    bits = cv2.morphologyEx(bits, cv2.MORPH_OPEN, kernel)
    for value, least in ((0, 0.01), (1, 0.005)):  # holes first, then pieces
        count, labels, stats, _ = cv2.connectedComponentsWithStats((bits == value).astype(np.uint8), connectivity=4)
        small = stats[:, cv2.CC_STAT_AREA] < least * bits.size
        small[0] = False  # label 0 marks the pixels of the other value
        bits[small[labels]] = 1 - value
    cleaned: Bits = bits.astype(bool)
    return cleaned


def _fault(found: Bits, lab: Floats) -> str | None:
    fault = _area_fault(found)
    if fault is not None:
        return fault
    fault = _pieces_fault(found)
    if fault is not None:
        return fault
    sides = (found[0], found[-1], found[:, 0], found[:, -1])
    if all(float(side.mean()) > 0.1 for side in sides):
        return "it touches all four sides"
    around = cv2.dilate(found.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & ~found
    if not around.any():
        return "it has no surroundings"
    within = found & ~cv2.erode(found.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    contrast = float(np.linalg.norm(np.median(lab[within], axis=0) - np.median(lab[around], axis=0)))
    return f"it hardly differs from its surroundings (by {contrast:.0f})" if contrast < MIN_CONTRAST else None


def _pieces_fault(found: Bits) -> str | None:
    _, _, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
    return "it is in many pieces" if stats[1:, cv2.CC_STAT_AREA].max() < MIN_LARGEST_PIECE * found.sum() else None


def _area_fault(found: Bits) -> str | None:
    share = float(found.mean())
    if not AREA[0] <= share <= AREA[1]:
        return f"it covers {share:.1%} of the photo"
    return None


def _lab(pixels: NDArray[np.uint8]) -> Floats:
    return np.asarray(cv2.cvtColor(pixels.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB), dtype=np.float32)


def _shrink(pixels: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1.0:
        return pixels
    return _resize(pixels, (max(8, round(height * scale)), max(8, round(width * scale))))


def _resize(values: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    smaller = values.shape[0] >= shape[0] and values.shape[1] >= shape[1]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    resized: Any = cv2.resize(values, (shape[1], shape[0]), interpolation=how)
    return np.asarray(resized, dtype=np.uint8)


def _soften(found: Bits, shape: tuple[int, int]) -> NDArray[np.uint8]:
    return _resize(found.astype(np.uint8) * 255, shape)


def _frame(shape: tuple[int, ...], width: int) -> Bits:
    frame = np.ones(shape, dtype=bool)
    frame[width:-width, width:-width] = False
    return frame
