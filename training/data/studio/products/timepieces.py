"""Timepieces: watch and wall clock."""

from __future__ import annotations

import numpy as np

from training.data.studio.canvas import Board, Colour, ellipse, mirrored, polygon, stroke
from training.data.studio.products.look import Look, darker


def watch(rng: np.random.Generator, board: Board, look: Look) -> str:
    square = rng.random() < 0.35
    board.add(
        polygon(mirrored([(0.575, 0.04), (0.6, 0.32), (0.6, 0.68), (0.57, 0.96)]), rounding=0.014),
        look.cloth,
        "round",
        1.2,
    )
    for y in (0.1, 0.15, 0.2, 0.8, 0.85, 0.9):
        board.line([(0.44, y), (0.56, y)], 0.004, 0.3)
    steel: Colour = ((196, 198, 204), (212, 178, 110), (70, 70, 76))[int(rng.integers(3))]
    radius = float(rng.uniform(0.185, 0.22))
    face: Colour = ((244, 242, 236), (28, 30, 38), (24, 50, 92))[int(rng.integers(3))]
    for size, colour, finish in (
        (radius, steel, "gloss"),
        (radius * 0.84, darker(steel, 0.7), "round"),
        (radius * 0.78, face, "flat"),
    ):
        if square:
            shape = polygon(
                [
                    (0.5 - size, 0.5 - size),
                    (0.5 + size, 0.5 - size),
                    (0.5 + size, 0.5 + size),
                    (0.5 - size, 0.5 + size),
                ],
                rounding=0.02,
            )
        else:
            shape = ellipse(0.5, 0.5, size, size)
        board.add(shape, colour, finish)  # type: ignore[arg-type]
    board.add(stroke([(0.5 + radius + 0.005, 0.5), (0.5 + radius + 0.025, 0.5)], 0.03), steel, "gloss")
    _dial(rng, board, 0.5, 0.5, radius * 0.7, (30, 30, 34) if sum(face) > 380 else (236, 236, 236))
    return "square watch" if square else "round watch"


def clock(rng: np.random.Generator, board: Board, look: Look) -> str:
    radius = float(rng.uniform(0.32, 0.42))
    board.add(ellipse(0.5, 0.5, radius, radius), look.cloth, "round", 1.2)
    face: Colour = ((248, 246, 240), (44, 46, 52))[int(rng.random() < 0.25)]
    board.add(ellipse(0.5, 0.5, radius * 0.86, radius * 0.86), face, "flat")
    _dial(rng, board, 0.5, 0.5, radius * 0.76, (34, 34, 38) if sum(face) > 380 else (240, 240, 236))
    return "large wall clock" if radius > 0.37 else "wall clock"


def _dial(rng: np.random.Generator, board: Board, cx: float, cy: float, radius: float, ink: Colour) -> None:
    for hour in range(12):
        angle = hour * np.pi / 6
        inner = 0.82 if hour % 3 else 0.72
        ends = [(cx + radius * r * float(np.sin(angle)), cy - radius * r * float(np.cos(angle))) for r in (inner, 0.96)]
        board.add(stroke(ends, 0.012 * radius / 0.2 if hour % 3 == 0 else 0.006 * radius / 0.2), ink, "flat", 0.0)
    for length, width in ((0.5, 0.016), (0.78, 0.01)):
        angle = float(rng.uniform(0, 2 * np.pi))
        tip = (cx + radius * length * float(np.sin(angle)), cy - radius * length * float(np.cos(angle)))
        board.add(stroke([(cx, cy), tip], width * radius / 0.2), ink, "flat", 0.3)
