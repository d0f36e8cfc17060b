"""What the shop sells: one function per kind draws it from its parameters, and says what it drew in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.data.studio.canvas import Board, Colour, Floats, Point, arc, ellipse, mirrored, polygon, stroke

Pick = Callable[..., str]


@dataclass(frozen=True)
class Look:
    """The colours and the print that a product is made in."""

    base: Colour
    accent: Colour
    cloth: Floats  # (BOARD, BOARD, 3)


def darker(colour: Colour, factor: float = 0.7) -> Colour:
    return (int(colour[0] * factor), int(colour[1] * factor), int(colour[2] * factor))


def _choose(rng: np.random.Generator, *options: str) -> str:
    return options[int(rng.integers(len(options)))]


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
    sleeves = _choose(rng, "no", "short", "long")
    neck = _choose(rng, "round", "v", "collar")
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
    cut = _choose(rng, "slim", "straight", "wide")
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


def shoe(rng: np.random.Generator, board: Board, look: Look) -> str:
    kind = _choose(rng, "sneaker", "boot", "pump")
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
    kind = _choose(rng, "tote", "handbag", "backpack")
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
    kind = _choose(rng, "brimmed hat", "cap", "beanie")
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


def lamp(rng: np.random.Generator, board: Board, look: Look) -> str:
    kind = _choose(rng, "table lamp", "floor lamp")
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


Draw = Callable[[np.random.Generator, Board, Look], str]
KINDS: dict[str, Draw] = {
    "bag": bag, "bottle": bottle, "chair": chair, "clock": clock, "dress": dress, "hat": hat, "jacket": jacket,
    "lamp": lamp, "mug": mug, "shirt": shirt, "shoes": shoe, "skirt": skirt, "sofa": sofa, "trousers": trousers,
    "watch": watch,
}  # fmt: skip
WEARABLE = frozenset({"dress", "jacket", "shirt", "skirt", "trousers"})
