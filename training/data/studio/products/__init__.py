"""The kinds of product in the flat stock: each is drawn by one function that returns its description in words.

garments.py     shirt, jacket, trousers, dress, skirt
accessories.py  shoes, bag, hat
timepieces.py   watch, clock
furniture.py    chair, sofa, lamp
tableware.py    mug, bottle
look.py         colours and print, shared by all kinds
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.data.studio.canvas import Board
from training.data.studio.products.accessories import bag, hat, shoe
from training.data.studio.products.furniture import chair, lamp, sofa
from training.data.studio.products.garments import dress, jacket, shirt, skirt, trousers
from training.data.studio.products.look import Look
from training.data.studio.products.tableware import bottle, mug
from training.data.studio.products.timepieces import clock, watch

__all__ = ["KINDS", "WEARABLE", "Look"]

Draw = Callable[[np.random.Generator, Board, Look], str]
KINDS: dict[str, Draw] = {
    "bag": bag, "bottle": bottle, "chair": chair, "clock": clock, "dress": dress, "hat": hat, "jacket": jacket,
    "lamp": lamp, "mug": mug, "shirt": shirt, "shoes": shoe, "skirt": skirt, "sofa": sofa, "trousers": trousers,
    "watch": watch,
}  # fmt: skip
WEARABLE = frozenset({"dress", "jacket", "shirt", "skirt", "trousers"})
