"""Accessories: shoes, bag and hat."""

from __future__ import annotations

import numpy as np

from training.data.studio.canvas import Board, arc, ellipse, mirrored, polygon, stroke
from training.data.studio.products.look import Look, choose, darker


def shoe(rng: np.random.Generator, board: Board, look: Look) -> str:
    kind = choose(rng, "sneaker", "boot", "pump")
    if kind == "pump":
        heel = float(rng.uniform(0.1, 0.26))
        board.add(
            polygon([(0.16, 0.52), (0.2, 0.52), (0.185, 0.52 + heel), (0.165, 0.52 + heel)]),
            darker(look.base, 0.6),
            "gloss",
        )
        body = [(0.15, 0.38), (0.3, 0.44), (0.48, 0.5), (0.7, 0.58), (0.86, 0.52 + heel - 0.05), (0.87, 0.52 + heel),
                (0.6, 0.51 + heel), (0.4, 0.57), (0.2, 0.53), (0.14, 0.5)]  # fmt: skip
        board.add(polygon(body, rounding=0.012), look.base, "gloss")
        board.add(
            polygon([(0.17, 0.4), (0.3, 0.45), (0.46, 0.505), (0.4, 0.52), (0.22, 0.47)], rounding=0.01),
            darker(look.base, 0.35),
            "flat",
        )
        return "pump with a heel"
    top = 0.16 if kind == "boot" else 0.36
    body = [(0.14, top), (0.36, top), (0.4, 0.44), (0.58, 0.53), (0.78, 0.58), (0.87, 0.66), (0.87, 0.72), (0.13, 0.72)]
    board.add(polygon(body, rounding=0.02), look.cloth, "cloth", 1.1)
    board.add(polygon([(0.7, 0.56), (0.88, 0.64), (0.88, 0.73), (0.66, 0.73)], rounding=0.02), darker(look.base, 0.85))
    board.add(polygon([(0.12, 0.7), (0.89, 0.7), (0.885, 0.775), (0.125, 0.775)], rounding=0.012),
              (238, 236, 230) if kind == "sneaker" else (60, 46, 38), "round")  # fmt: skip
    board.add(
        polygon([(0.155, top - 0.005), (0.35, top - 0.005), (0.34, top + 0.03), (0.165, top + 0.03)], rounding=0.008),
        darker(look.base, 0.4),
        "flat",
    )
    for step in range(4):
        x, y = 0.42 + 0.07 * step, 0.43 + 0.042 * step
        if kind == "boot":
            x, y = 0.37 + 0.008 * step, 0.2 + 0.07 * step
        board.add(stroke([(x - 0.05, y + 0.025), (x + 0.035, y - 0.005)], 0.013), look.accent, "flat", 0.5)
    return kind


def bag(rng: np.random.Generator, board: Board, look: Look) -> str:
    kind = choose(rng, "tote", "handbag", "backpack")
    if kind == "backpack":
        board.add(stroke(arc(0.5, 0.2, 0.07, 0.08, 180, 360), 0.022), darker(look.base, 0.6))
        board.add(
            polygon(mirrored([(0.6, 0.17), (0.7, 0.25), (0.74, 0.8), (0.7, 0.87)]), rounding=0.03),
            look.cloth,
            depth=1.3,
        )
        board.add(polygon(mirrored([(0.65, 0.52), (0.67, 0.8)]), rounding=0.025), darker(look.base, 0.9), depth=1.1)
        board.line(arc(0.5, 0.42, 0.2, 0.18, 190, 350), 0.007, 0.5)
        board.line([(0.36, 0.57), (0.64, 0.57)], 0.006, 0.5)
        return "backpack"
    flare, top = float(rng.uniform(-0.04, 0.06)), float(rng.uniform(0.38, 0.46))
    height = 0.34 if kind == "tote" else 0.2
    handle = arc(0.5, top + 0.03, 0.13, height, 180, 360)
    board.add(stroke(handle, 0.026), darker(look.base, 0.7), "gloss")
    board.add(
        polygon(mirrored([(0.7 - flare, top), (0.74 + flare, 0.82), (0.7 + flare, 0.86)]), rounding=0.018),
        look.cloth,
        depth=1.3,
    )
    if kind == "handbag":
        board.add(
            polygon(mirrored([(0.7 - flare, top), (0.69, 0.56), (0.56, 0.64)]), rounding=0.012), darker(look.base, 0.85)
        )
        board.add(ellipse(0.5, 0.63, 0.026, 0.02), (208, 178, 110), "gloss")
    board.line([(0.3, 0.835), (0.7, 0.835)], 0.003, 0.3)
    return "tote bag" if kind == "tote" else "handbag with a clasp"


def hat(rng: np.random.Generator, board: Board, look: Look) -> str:
    kind = choose(rng, "brimmed hat", "cap", "beanie")
    if kind == "beanie":
        board.add(
            polygon([*arc(0.5, 0.62, 0.25, 0.38, 180, 360), (0.75, 0.68), (0.25, 0.68)], rounding=0.01),
            look.cloth,
            depth=1.2,
        )
        for x in np.linspace(0.29, 0.71, 11):
            board.line([(x, 0.6), (0.5 + (x - 0.5) * 0.5, 0.3)], 0.005, 0.16)
        board.add(
            polygon([(0.24, 0.58), (0.76, 0.58), (0.765, 0.72), (0.235, 0.72)], rounding=0.012), darker(look.base, 0.9)
        )
        if rng.random() < 0.5:
            board.add(ellipse(0.5, 0.22, 0.075, 0.07), look.accent)
        return kind
    if kind == "cap":
        board.add(
            polygon([*arc(0.46, 0.58, 0.25, 0.3, 180, 360), (0.71, 0.62), (0.21, 0.62)], rounding=0.008),
            look.cloth,
            depth=1.2,
        )
        board.line(arc(0.46, 0.58, 0.1, 0.3, 180, 270), 0.004, 0.35)
        board.line(arc(0.46, 0.58, 0.12, 0.3, 270, 360), 0.004, 0.35)
        board.add(
            polygon([(0.42, 0.57), (0.7, 0.56), (0.9, 0.64), (0.88, 0.675), (0.5, 0.645)], rounding=0.014), look.accent
        )
        board.add(ellipse(0.46, 0.285, 0.02, 0.012), look.accent)
        return kind
    brim = float(rng.uniform(0.32, 0.44))
    board.add(ellipse(0.5, 0.64, brim, 0.11), darker(look.base, 0.9), depth=1.2)
    crown = float(rng.uniform(0.28, 0.4))
    board.add(
        polygon(
            [
                (0.31, 0.64),
                (0.33, crown),
                (0.42, crown - 0.06),
                (0.5, crown - 0.03),
                (0.58, crown - 0.06),
                (0.67, crown),
                (0.69, 0.64),
            ],
            rounding=0.02,
        ),
        look.cloth,
        depth=1.2,
    )
    board.add(polygon([(0.31, 0.57), (0.69, 0.57), (0.695, 0.645), (0.305, 0.645)], rounding=0.004), look.accent)
    return kind
