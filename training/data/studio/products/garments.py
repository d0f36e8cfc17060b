"""Garments: shirt, jacket, trousers, dress and skirt."""

from __future__ import annotations

import numpy as np

from training.data.studio.canvas import Board, Point, arc, ellipse, mirrored, polygon, stroke
from training.data.studio.products.look import Look, choose, darker


def _sleeve(side: int, length: float, width: float, drop: float) -> list[Point]:
    """A right (1) or left (-1) sleeve from the shoulder down."""
    points = [
        (0.62, 0.165),
        (0.70 + 0.16 * length, 0.24 + length * drop),
        (0.70 + 0.16 * length - width, 0.28 + length * drop),
        (0.61, 0.34),
    ]
    return [(x if side > 0 else 1 - x, y) for x, y in points]


def _torso(waist: float, hem: float, bottom: float) -> list[Point]:
    return mirrored([(0.555, 0.155), (0.60, 0.15), (0.67, 0.19), (0.65, 0.33), (waist, 0.52), (hem, bottom)])


def shirt(rng: np.random.Generator, board: Board, look: Look) -> str:
    sleeves = choose(rng, "no", "short", "long")
    neck = choose(rng, "round", "v", "collar")
    length = {"no": 0.0, "short": 0.55, "long": 1.0}[sleeves]
    drop, bottom = float(rng.uniform(0.2, 0.48)), float(rng.uniform(0.76, 0.88))
    for side in (-1, 1):
        if length:
            board.add(polygon(_sleeve(side, length, 0.085, drop), rounding=0.012), look.cloth)
    board.add(
        polygon(_torso(float(rng.uniform(0.63, 0.66)), float(rng.uniform(0.64, 0.69)), bottom), rounding=0.014),
        look.cloth,
    )
    board.line([(0.345, bottom - 0.02), (0.655, bottom - 0.02)], 0.003, 0.25)
    depth = 0.3 if neck == "v" else 0.225
    opening = [(0.43, 0.14), (0.57, 0.14), (0.5, depth)] if neck == "v" else arc(0.5, 0.145, 0.075, 0.07, 0, 180)
    board.add(polygon(opening, rounding=0.004), darker(look.base, 0.45), "flat")
    board.hole(polygon([(0.42, 0.1), (0.58, 0.1), (0.55, 0.155), (0.45, 0.155)]))
    if neck == "collar":
        for side in (-1, 1):
            flap = [(0.5, 0.215), (0.5 + side * 0.085, 0.14), (0.5 + side * 0.105, 0.2), (0.5 + side * 0.04, 0.26)]
            board.add(polygon(flap, rounding=0.004), look.accent if rng.random() < 0.3 else look.base)
        board.line([(0.5, 0.22), (0.5, bottom)], 0.004, 0.3)
        for y in np.arange(0.28, bottom - 0.04, 0.085):
            board.add(ellipse(0.512, float(y), 0.008, 0.008), (236, 234, 226), "flat")
    if rng.random() < 0.25:
        board.add(polygon([(0.54, 0.33), (0.62, 0.33), (0.62, 0.43), (0.54, 0.43)], rounding=0.006), look.base)
    return f"shirt with {sleeves} sleeves" if sleeves == "no" else f"shirt with {sleeves} sleeves and a {neck} neck"


def jacket(rng: np.random.Generator, board: Board, look: Look) -> str:
    bottom = float(rng.uniform(0.78, 0.92))
    hood = rng.random() < 0.4
    if hood:
        board.add(ellipse(0.5, 0.15, 0.14, 0.1), darker(look.base, 0.85))
        board.add(ellipse(0.5, 0.165, 0.09, 0.07), darker(look.base, 0.4), "flat")
    drop = float(rng.uniform(0.4, 0.5))
    for side in (-1, 1):
        board.add(polygon(_sleeve(side, 1.0, 0.1, drop), rounding=0.014), look.cloth, depth=1.2)
    board.add(polygon(_torso(0.67, 0.69, bottom), rounding=0.016), look.cloth, depth=1.2)
    board.add(polygon([(0.44, 0.15), (0.56, 0.15), (0.5, 0.36)], rounding=0.004), look.accent)
    for side in (-1, 1):
        lapel = [(0.5, 0.4), (0.5 + side * 0.045, 0.15), (0.5 + side * 0.11, 0.17), (0.5 + side * 0.085, 0.3)]
        board.add(polygon(lapel, rounding=0.003), darker(look.base, 0.9))
        pocket = [(0.5 + side * x, y) for x, y in ((0.06, 0.6), (0.14, 0.585), (0.14, 0.61), (0.06, 0.625))]
        board.add(polygon(pocket), darker(look.base, 0.8))
    board.line([(0.5, 0.38), (0.5, bottom - 0.01)], 0.007, 0.5)
    for y in np.arange(0.44, bottom - 0.06, 0.1):
        board.add(ellipse(0.517, float(y), 0.011, 0.011), darker(look.accent, 0.8), "gloss")
    return "hooded jacket" if hood else "jacket with lapels"


def trousers(rng: np.random.Generator, board: Board, look: Look) -> str:
    cut = choose(rng, "slim", "straight", "wide")
    width = {"slim": 0.085, "straight": 0.115, "wide": 0.165}[cut]
    bottom = float(rng.choice([0.58, 0.92]))
    for side in (-1, 1):
        knee = 0.125 if bottom > 0.7 else 0.12
        halves = ((0.0, 0.14), (0.155, 0.14), (0.185, 0.34), (knee + width / 2, bottom), (knee - width / 2, bottom))
        leg = [*((0.5 + side * x, y) for x, y in halves), (0.5, 0.4)]
        board.add(polygon(leg, rounding=0.008), look.cloth, depth=1.1)
    board.add(
        polygon([(0.343, 0.125), (0.657, 0.125), (0.66, 0.175), (0.34, 0.175)], rounding=0.004), darker(look.base, 0.85)
    )
    board.line([(0.5, 0.175), (0.5, 0.4)], 0.005)
    for side in (-1, 1):
        board.line([(0.5 + side * 0.08, 0.18), (0.5 + side * 0.16, 0.26)], 0.004, 0.35)
    board.add(ellipse(0.5, 0.15, 0.012, 0.012), (190, 176, 140), "gloss")
    return f"{cut} shorts" if bottom < 0.7 else f"{cut} trousers"


def dress(rng: np.random.Generator, board: Board, look: Look) -> str:
    straps = rng.random() < 0.5
    hem, bottom = float(rng.uniform(0.64, 0.8)), float(rng.uniform(0.74, 0.93))
    if straps:
        for side in (-1, 1):
            board.add(stroke([(0.5 + side * 0.07, 0.1), (0.5 + side * 0.085, 0.24)], 0.016), look.base)
        top = [(0.6, 0.2), (0.61, 0.26)]
    else:
        for side in (-1, 1):
            board.add(polygon(_sleeve(side, 0.5, 0.09, 0.25), rounding=0.012), look.cloth)
        top = [(0.57, 0.135), (0.655, 0.18), (0.64, 0.3)]
    board.add(polygon(mirrored([*top, (0.585, 0.43), (hem, bottom)]), rounding=0.012), look.cloth, depth=1.1)
    for x in (-0.6, -0.2, 0.25, 0.6):
        board.line([(0.5 + x * 0.1, 0.46), (0.5 + x * (hem - 0.5) * 1.3, bottom - 0.02)], 0.006, 0.22)
    belt = rng.random() < 0.5
    if belt:
        board.add(polygon([(0.413, 0.415), (0.587, 0.415), (0.587, 0.452), (0.413, 0.452)]), look.accent)
    if not straps:
        board.add(polygon(arc(0.5, 0.13, 0.08, 0.075, 0, 180)), darker(look.base, 0.45), "flat")
        board.hole(polygon([(0.4, 0.08), (0.6, 0.08), (0.57, 0.14), (0.43, 0.14)]))
    return ("strappy" if straps else "short-sleeved") + " dress" + (" with a belt" if belt else "")


def skirt(rng: np.random.Generator, board: Board, look: Look) -> str:
    hem, bottom = float(rng.uniform(0.62, 0.85)), float(rng.uniform(0.62, 0.86))
    board.add(
        polygon(mirrored([(0.61, 0.22), (0.6 + 0.3 * (hem - 0.6), 0.4), (hem, bottom)]), rounding=0.01),
        look.cloth,
        depth=1.2,
    )
    pleats = rng.random() < 0.5
    for x in np.linspace(-0.8, 0.8, 8 if pleats else 3):
        board.line([(0.5 + x * 0.11, 0.27), (0.5 + x * (hem - 0.5), bottom - 0.01)], 0.008, 0.28)
    board.add(
        polygon([(0.388, 0.2), (0.612, 0.2), (0.612, 0.25), (0.388, 0.25)], rounding=0.004), darker(look.base, 0.8)
    )
    return ("pleated" if pleats else "flared") + " skirt"
