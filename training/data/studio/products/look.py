"""The colours and print of a product, and helpers that the drawings share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.data.studio.canvas import Colour, Floats


@dataclass(frozen=True)
class Look:
    """The colours and print of one product; `cloth` is its printed surface `(BOARD, BOARD, 3)` in 0..255."""

    base: Colour
    accent: Colour
    cloth: Floats


def darker(colour: Colour, factor: float = 0.7) -> Colour:
    return (int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor))


def choose(rng: np.random.Generator, *options: str) -> str:
    """One of the options at random."""
    return options[int(rng.integers(len(options)))]
