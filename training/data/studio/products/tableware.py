"""Tableware: mug and bottle."""

from __future__ import annotations

import numpy as np

from training.data.studio.canvas import Board, arc, ellipse, mirrored, polygon, stroke
from training.data.studio.products.look import Look, darker


def mug(rng: np.random.Generator, board: Board, look: Look) -> str:
    width, height = float(rng.uniform(0.2, 0.27)), float(rng.uniform(0.42, 0.6))
    taper = float(rng.uniform(-0.02, 0.06))
    middle = 0.5 + height / 2
    board.add(stroke(arc(0.45 + width, 0.52, 0.13, height * 0.32, -80, 80), 0.042), darker(look.base, 0.95), "gloss")
    body = [
        (0.45 - width, 0.5 - height / 2),
        (0.45 + width, 0.5 - height / 2),
        (0.45 + width - taper, middle),
        (0.45 - width + taper, middle),
    ]
    board.add(polygon(body, rounding=0.008), look.cloth, "round", 1.1)
    board.add(ellipse(0.45, middle, width - taper, 0.035), look.cloth * 0.78, "round", 0.0)
    board.add(ellipse(0.45, 0.5 - height / 2, width, 0.045), darker(look.base, 0.95), "round", 0.4)
    board.add(
        ellipse(0.45, 0.5 - height / 2 + 0.004, width - 0.022, 0.033),
        (74, 48, 34) if rng.random() < 0.4 else darker(look.base, 0.5),
        "flat",
        0.0,
    )
    return "tall mug" if height > 0.52 else "mug"


def bottle(rng: np.random.Generator, board: Board, look: Look) -> str:
    width, shoulder = float(rng.uniform(0.1, 0.17)), float(rng.uniform(0.34, 0.5))
    neck = float(rng.uniform(0.035, 0.06))
    body = mirrored([(0.5 + neck, 0.14), (0.5 + neck, shoulder - 0.09), (0.5 + width, shoulder), (0.5 + width, 0.9)])
    board.add(polygon(body, rounding=0.016), look.base, "gloss", 1.2)
    board.add(
        polygon(
            [
                (0.5 - neck - 0.006, 0.09),
                (0.5 + neck + 0.006, 0.09),
                (0.5 + neck + 0.006, 0.17),
                (0.5 - neck - 0.006, 0.17),
            ],
            rounding=0.006,
        ),
        look.accent,
        "round",
    )
    top = shoulder + 0.07
    board.add(
        polygon([(0.5 - width, top), (0.5 + width, top), (0.5 + width, top + 0.24), (0.5 - width, top + 0.24)]),
        look.cloth * 0.25 + 176,
        "round",
        0.8,
    )
    for row in range(3):
        board.line(
            [(0.5 - width * 0.6, top + 0.06 + 0.05 * row), (0.5 + width * (0.6 - 0.3 * row), top + 0.06 + 0.05 * row)],
            0.009,
            0.5,
        )
    return "wide bottle" if width > 0.14 else "slender bottle"
