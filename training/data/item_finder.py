"""Runs the item finder, a network that predicts which pixels of a photo belong to the item, and refines its masks.

GrabCut refines the masks (see `training.data.masks`), initialised with the network's probabilities instead of a frame;
its cut is used if it agrees with the network's mask. Imports no torch: reading processes use ONNX Runtime.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.errors import EncoderError
from training.onnx.graph import open_session
from training.reference import PRETRAINED

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FINDER_FILE = PRETRAINED / "finder" / "finder.onnx"
SURE_ITEM, SURE_BACKGROUND = 0.95, 0.03  # probabilities beyond which GrabCut cannot change a pixel
KEPT = 0.75  # minimum IoU of the cut with the network's mask; below it, the network's mask is used
ITERATIONS = 2

Floats = NDArray[np.float32]


class Prediction(NamedTuple):
    """Probability of each pixel of belonging to the item, `(H, W)` float32, and the predicted IoU of that mask."""

    probability: Floats
    quality: float


def find_item(pixels: NDArray[np.uint8], finder: Path = FINDER_FILE) -> Prediction:
    """The finder's prediction for a photo `(H, W, 3)` uint8 of any size.

    Raises:
        EncoderError: the finder's file is missing or damaged.
    """
    height, width = pixels.shape[:2]
    side = finder_side(finder)
    square = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))
    found = predict(square, finder)
    whole = cv2.resize(found.probability, (width, height), interpolation=cv2.INTER_LINEAR)
    return Prediction(np.asarray(whole, np.float32), found.quality)


def predict(square: NDArray[np.uint8], finder: Path = FINDER_FILE) -> Prediction:
    """The prediction for an image `(S, S, 3)` uint8, S = `finder_side()`, per cell; raises as `find_item`."""
    mask, quality = _session(finder).run(["mask", "quality"], {"pixels": square.transpose(2, 0, 1)[None]})
    return Prediction(mask[0, 0], float(quality[0]))


def finder_side(finder: Path = FINDER_FILE) -> int:
    """Side in pixels of the finder's input; raises as `find_item`."""
    side: int = _session(finder).get_inputs()[0].shape[2]
    return side


def refine(pixels: NDArray[np.uint8], probability: Floats) -> NDArray[np.bool_]:
    """The item's pixels `(H, W)` of a small photo, cut along its colours where the finder is uncertain."""
    marks = np.where(probability > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    marks[probability > SURE_ITEM], marks[probability < SURE_BACKGROUND] = cv2.GC_FGD, cv2.GC_BGD
    guessed: NDArray[np.bool_] = probability > 0.5
    behind, item = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # the mixtures start from random means
    try:
        cv2.grabCut(pixels, marks, (0, 0, 0, 0), behind, item, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:
        return guessed  # too few pixels of item or background for GrabCut
    cut: NDArray[np.bool_] = (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)
    either = (cut | guessed).sum()
    return cut if either and (cut & guessed).sum() >= KEPT * either else guessed


@lru_cache(maxsize=2)
def _session(finder: Path) -> InferenceSession:
    try:
        return open_session(finder.read_bytes(), threads=1)  # the reading processes share the cores
    except OSError as exc:
        raise EncoderError(f"{finder}: the item finder cannot be read ({exc.strerror}); reinstall nitamono") from exc
    except EncoderError as exc:
        raise EncoderError(f"{finder}: {exc}") from exc
