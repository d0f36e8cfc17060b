"""Furniture: chair, sofa and lamp."""

from __future__ import annotations

import numpy as np

from training.data.studio.canvas import Board, Colour, ellipse, polygon, stroke
from training.data.studio.products.look import Look, choose, darker


def chair(rng: np.random.Generator, board: Board, look: Look) -> str:
    wood: Colour = ((146, 100, 60), (98, 66, 44), (206, 170, 120), (58, 56, 58))[int(rng.integers(4))]
    back = float(rng.uniform(0.1, 0.2))
    armrests = rng.random() < 0.35
    for x, y in ((0.33, 0.82), (0.67, 0.82)):
        board.add(stroke([(x, 0.55), (x, y)], 0.024), darker(wood, 0.75), "round")
    board.add(
        polygon([(0.31, back), (0.69, back), (0.67, 0.54), (0.33, 0.54)], rounding=0.02),
        look.cloth if rng.random() < 0.6 else wood,
        depth=1.2,
    )
    if rng.random() < 0.5:
        for x in (0.4, 0.5, 0.6):
            board.hole(
                polygon(
                    [(x - 0.03, back + 0.06), (x + 0.03, back + 0.06), (x + 0.028, 0.46), (x - 0.028, 0.46)],
                    rounding=0.008,
                )
            )
    board.add(polygon([(0.31, 0.53), (0.69, 0.53), (0.77, 0.64), (0.23, 0.64)], rounding=0.016), look.cloth, depth=1.1)
    board.add(
        polygon([(0.23, 0.635), (0.77, 0.635), (0.765, 0.675), (0.235, 0.675)], rounding=0.006),
        darker(wood, 0.9),
        "flat",
    )
    for x in (0.255, 0.745):
        board.add(stroke([(x, 0.66), (x + (x - 0.5) * 0.08, 0.94)], 0.03), wood, "round")
        if armrests:
            board.add(stroke([(x, 0.4), (x, 0.62)], 0.02), wood, "round")
            board.add(stroke([(0.5 + (x - 0.5) * 0.72, 0.38), (x, 0.4)], 0.03), wood, "round")
    return "armchair" if armrests else "chair"


def sofa(rng: np.random.Generator, board: Board, look: Look) -> str:
    seats = int(rng.integers(2, 4))
    top = float(rng.uniform(0.3, 0.4))
    for x in (0.14, 0.86):
        board.add(stroke([(x, 0.76), (x, 0.84)], 0.028), (90, 62, 42), "round")
    board.add(
        polygon([(0.12, top), (0.88, top), (0.88, 0.7), (0.12, 0.7)], rounding=0.025), look.cloth * 0.9, depth=1.3
    )
    step = 0.66 / seats
    for seat in range(seats):
        x = 0.17 + seat * step
        board.add(
            polygon(
                [(x + 0.006, top + 0.04), (x + step - 0.006, top + 0.04), (x + step - 0.006, 0.58), (x + 0.006, 0.58)],
                rounding=0.02,
            ),
            look.cloth,
            depth=1.3,
        )
        board.add(
            polygon([(x, 0.56), (x + step, 0.56), (x + step, 0.67), (x, 0.67)], rounding=0.018),
            np.minimum(look.cloth * 1.06, 255),
            depth=1.2,
        )
    board.add(polygon([(0.1, 0.66), (0.9, 0.66), (0.9, 0.78), (0.1, 0.78)], rounding=0.012), look.cloth * 0.86)
    for x in (0.07, 0.81):
        board.add(
            polygon([(x, 0.45), (x + 0.12, 0.45), (x + 0.12, 0.79), (x, 0.79)], rounding=0.03), look.cloth, depth=1.3
        )
    if rng.random() < 0.6:
        x = float(rng.uniform(0.26, 0.6))
        board.add(
            polygon([(x, 0.47), (x + 0.13, 0.44), (x + 0.16, 0.57), (x + 0.02, 0.59)], rounding=0.012), look.accent
        )
    return f"sofa for {'two' if seats == 2 else 'three'}"


def lamp(rng: np.random.Generator, board: Board, look: Look) -> str:
    kind = choose(rng, "table lamp", "floor lamp")
    base = 0.88 if kind == "table lamp" else 0.94
    top, foot = (0.12, 0.46) if kind == "table lamp" else (0.05, 0.28)
    board.add(stroke([(0.5, foot), (0.5, base)], 0.016), (120, 104, 84), "gloss")
    if kind == "table lamp":
        belly = float(rng.uniform(0.07, 0.13))
        board.add(ellipse(0.5, 0.72, belly, 0.13), look.accent, "gloss", 1.2)
    board.add(ellipse(0.5, base, 0.14, 0.026), darker(look.accent, 0.6), "round")
    upper, lower = float(rng.uniform(0.09, 0.17)), float(rng.uniform(0.18, 0.26))
    shade = [(0.5 - upper, top), (0.5 + upper, top), (0.5 + lower, foot), (0.5 - lower, foot)]
    warm = np.minimum(look.cloth * 0.82 + np.asarray((64, 52, 22), np.float32), 255)
    board.add(polygon(shade, rounding=0.006), warm, "round", 0.8)
    board.line([(0.5 - lower + 0.01, foot - 0.008), (0.5 + lower - 0.01, foot - 0.008)], 0.006, 0.3)
    return kind
