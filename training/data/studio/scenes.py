"""The surroundings of a product: a bank of numbered backgrounds, and the person who wears a garment."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.data.studio.canvas import Board, Colour, Floats, Point, arc, ellipse, mirrored, polygon, stroke

BACKGROUNDS = 200  # in the bank
KINDS = ("plain", "gradient", "texture", "room")
_SCENE = 3  # random stream of a seed from which backgrounds are drawn
WALLS: tuple[Colour, ...] = (
    (236, 234, 230), (214, 218, 222), (226, 214, 196), (178, 196, 190), (198, 178, 168), (150, 160, 178),
    (118, 128, 118), (88, 92, 104), (206, 190, 214), (240, 224, 206),
)  # fmt: skip


def background_kind(seed: int, number: int) -> str:
    """The kind of background `number` of the bank."""
    return KINDS[int(_rng(seed, number).integers(len(KINDS)))]


@lru_cache(maxsize=64)
def draw_background(seed: int, number: int, size: int) -> Floats:
    """Background `number` of a seed's bank, `(size, size, 3)` in 0..255; the same in every photo."""
    rng = _rng(seed, number)
    kind = KINDS[int(rng.integers(len(KINDS)))]
    wall = _vary(rng, WALLS[int(rng.integers(len(WALLS)))])
    draw = {"plain": _plain, "gradient": _gradient, "texture": _texture, "room": _room}[kind]
    pixels = draw(rng, wall, size)
    pixels.setflags(write=False)
    return pixels


def _rng(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, _SCENE, number])


def _vary(rng: np.random.Generator, colour: Colour, by: int = 14) -> Colour:
    moved = np.clip(np.asarray(colour) + rng.integers(-by, by + 1, 3), 0, 255)
    return (int(moved[0]), int(moved[1]), int(moved[2]))


def _grid(size: int) -> tuple[Floats, Floats]:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    return x, y


def _smooth(rng: np.random.Generator, size: int, down: int, across: int) -> Floats:
    small = Image.fromarray(rng.normal(0, 1, (down, across)).astype(np.float32))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


def _plain(rng: np.random.Generator, wall: Colour, size: int) -> Floats:
    return np.tile(np.asarray(wall, np.float32), (size, size, 1)) + _smooth(rng, size, 3, 3)[..., None] * 2


def _gradient(rng: np.random.Generator, wall: Colour, size: int) -> Floats:
    x, y = _grid(size)
    other = np.asarray(_vary(rng, WALLS[int(rng.integers(len(WALLS)))], 40), np.float32)
    angle = float(rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.4:  # a studio sweep: light in the middle
        amount = np.clip(np.hypot(x - 0.5, y - 0.45) * 1.5, 0, 1)
    else:
        amount = np.clip((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.5, 0, 1)
    ends = np.asarray(wall, np.float32), other
    pixels: Floats = ends[0] * (1 - amount[..., None]) + ends[1] * amount[..., None]
    return pixels


def _texture(rng: np.random.Generator, wall: Colour, size: int) -> Floats:
    kinds = (_wood, _tiles, _marble, _fabric, _bricks, _grass)
    return kinds[int(rng.integers(len(kinds)))](rng, wall, size)


def _wood(rng: np.random.Generator, wall: Colour, size: int) -> Floats:
    x, y = _grid(size)
    if rng.random() < 0.5:
        x, y = y, x
    planks = int(rng.integers(4, 9))
    plank = np.floor(y * planks).astype(int)
    shift, tone = rng.uniform(0, 9, planks + 1), rng.uniform(0.82, 1.12, planks + 1)
    rings = np.sin((y * planks * 9 + 1.6 * _smooth(rng, size, 12, 3) + shift[plank]) * 3.1)
    brown = np.asarray(_vary(rng, ((150, 108, 70), (190, 152, 108), (96, 66, 46))[int(rng.integers(3))]), np.float32)
    pixels: Floats = brown * (tone[plank] * (1 + 0.06 * rings + 0.04 * _smooth(rng, size, 60, 8)))[..., None]
    gap = np.abs((y * planks) % 1 - 0.5) > 0.485
    pixels[gap] *= 0.55
    return pixels


def _tiles(rng: np.random.Generator, wall: Colour, size: int) -> Floats:
    x, y = _grid(size)
    count = int(rng.integers(4, 9))
    column, row = np.floor(x * count).astype(int), np.floor(y * count).astype(int)
    tone = rng.uniform(0.9, 1.06, (count + 1, count + 1))[row, column]
    checker = np.where((row + column) % 2 == 0, 1.0, float(rng.uniform(0.55, 1.0)))
    pixels: Floats = np.asarray(wall, np.float32) * (tone * checker)[..., None]
    joint = (np.abs((x * count) % 1 - 0.5) > 0.475) | (np.abs((y * count) % 1 - 0.5) > 0.475)
    pixels[joint] = np.asarray(wall, np.float32) * 0.72
    return pixels


def _marble(rng: np.random.Generator, wall: Colour, size: int) -> Floats:
    x, y = _grid(size)
    warp = 1.2 * _smooth(rng, size, 5, 5) + 0.5 * _smooth(rng, size, 13, 13)
    veins = np.abs(np.sin(7 * (x + y * float(rng.uniform(-1, 1))) + warp))
    light = 0.72 + 0.28 * np.clip(veins * 2.4, 0, 1)
    pixels: Floats = (np.asarray(wall, np.float32) * light[..., None]).astype(np.float32)
    return pixels


def _fabric(rng: np.random.Generator, wall: Colour, size: int) -> Floats:
    x, y = _grid(size)
    folds = 0.14 * _smooth(rng, size, 4, 9)
    weave = 0.05 * (np.sin(x * 420) + np.sin(y * 420))
    colour = np.asarray(_vary(rng, wall, 50), np.float32)
    stripe = np.where((x * float(rng.integers(6, 16))) % 1 < 0.5, 1.0, float(rng.uniform(0.7, 1.0)))
    return (colour * (stripe * (1 + folds + weave))[..., None]).astype(np.float32)


def _bricks(rng: np.random.Generator, wall: Colour, size: int) -> Floats:
    x, y = _grid(size)
    rows = int(rng.integers(9, 15))
    row = np.floor(y * rows).astype(int)
    along = x * rows / 2.4 + 0.5 * (row % 2)
    tone = rng.uniform(0.78, 1.12, (rows + 1, rows + 2))[row, np.floor(along).astype(int) % (rows + 2)]
    red = np.asarray(_vary(rng, ((162, 88, 70), (196, 186, 176), (120, 80, 70))[int(rng.integers(3))]), np.float32)
    pixels: Floats = red * (tone * (1 + 0.05 * _smooth(rng, size, 60, 60)))[..., None]
    joint = (np.abs((y * rows) % 1 - 0.5) > 0.45) | (np.abs(along % 1 - 0.5) > 0.475)
    pixels[joint] = (186, 180, 172)
    return pixels


def _grass(rng: np.random.Generator, wall: Colour, size: int) -> Floats:
    green = np.asarray(_vary(rng, (98, 128, 66)), np.float32)
    blades = 0.16 * _smooth(rng, size, 40, 120) + 0.12 * rng.normal(0, 1, (size, size)).astype(np.float32)
    pixels: Floats = (green * (1 + blades + 0.1 * _smooth(rng, size, 6, 6))[..., None]).astype(np.float32)
    return pixels


def _room(rng: np.random.Generator, wall: Colour, size: int) -> Floats:
    """A wall and a floor with a random choice of a window, pictures, a shelf, a plant and a rug."""
    scale = 2 * size
    floor_at = float(rng.uniform(0.55, 0.8))
    paper = _plain(rng, wall, size) * (1 + 0.1 * (0.5 - _grid(size)[1])[..., None])
    below = _wood(rng, wall, size) if rng.random() < 0.6 else _fabric(rng, wall, size)
    mix = np.where(_grid(size)[1][..., None] > floor_at, below, paper)
    image = Image.fromarray(np.clip(mix, 0, 255).astype(np.uint8)).resize((scale, scale), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    _box(draw, scale, 0, floor_at - 0.022, 1, floor_at, (232, 228, 222))
    if rng.random() < 0.5:
        _window(rng, draw, scale)
    for _ in range(int(rng.integers(0, 4))):
        x, y, w = (float(v) for v in rng.uniform((0.02, 0.03, 0.08), (0.85, 0.35, 0.2)))
        _box(draw, scale, x, y, x + w, y + w * 1.2, _vary(rng, (70, 60, 52), 30))
        _box(draw, scale, x + 0.012, y + 0.012, x + w - 0.012, y + w * 1.2 - 0.012, _vary(rng, (170, 150, 140), 70))
    if rng.random() < 0.6:
        _shelf(rng, draw, scale)
    if rng.random() < 0.6:
        _plant(rng, draw, scale, floor_at)
    if rng.random() < 0.5:
        x = float(rng.uniform(0.1, 0.5))
        rug = [v * scale for v in (x - 0.2, floor_at + 0.08, x + 0.6, 0.99)]
        draw.ellipse(rug, fill=_vary(rng, (150, 90, 84), 60), outline=(226, 214, 196), width=scale // 90)
    soft = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 2.2)) * scale / 512))
    return np.asarray(soft.resize((size, size), Image.Resampling.BOX), dtype=np.float32)


def _box(draw: ImageDraw.ImageDraw, scale: int, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
    draw.rectangle([x0 * scale, y0 * scale, x1 * scale, y1 * scale], fill=fill)


def _window(rng: np.random.Generator, draw: ImageDraw.ImageDraw, scale: int) -> None:
    x, w = float(rng.uniform(0.0, 0.65)), float(rng.uniform(0.22, 0.34))
    _box(draw, scale, x, 0.04, x + w, 0.5, (240, 240, 238))
    sky = _vary(rng, (176, 206, 230), 24)
    for pane in (0, 1):
        left = x + 0.012 + pane * (w / 2)
        _box(draw, scale, left, 0.055, left + w / 2 - 0.02, 0.485, sky)
    _box(draw, scale, x - 0.03, 0.02, x + 0.02, 0.56, _vary(rng, (200, 180, 170), 40))
    _box(draw, scale, x + w - 0.02, 0.02, x + w + 0.03, 0.56, _vary(rng, (200, 180, 170), 40))


def _shelf(rng: np.random.Generator, draw: ImageDraw.ImageDraw, scale: int) -> None:
    y, x0 = float(rng.uniform(0.2, 0.46)), float(rng.uniform(0.0, 0.4))
    x1, x = x0 + float(rng.uniform(0.35, 0.6)), x0 + 0.01
    _box(draw, scale, x0, y, x1, y + 0.02, _vary(rng, (120, 84, 56), 24))
    while x < x1 - 0.06:
        w, h = float(rng.uniform(0.015, 0.05)), float(rng.uniform(0.06, 0.16))
        colour = _vary(rng, (150, 120, 110), 90)
        if rng.random() < 0.25:
            draw.ellipse([v * scale for v in (x, y - h * 0.8, x + 1.6 * w, y)], fill=colour)
            x += 0.8 * w
        else:
            _box(draw, scale, x, y - h, x + w, y, colour)
        x += w + float(rng.uniform(0.002, 0.02))


def _plant(rng: np.random.Generator, draw: ImageDraw.ImageDraw, scale: int, floor_at: float) -> None:
    x = float(rng.choice([rng.uniform(0.02, 0.2), rng.uniform(0.8, 0.96)]))
    base = floor_at + 0.06
    for _ in range(12):
        angle, length = float(rng.uniform(-1.2, 1.2)), float(rng.uniform(0.1, 0.26))
        tip = (x + length * np.sin(angle), base - 0.1 - length * np.cos(angle))
        side = 0.02 * np.cos(angle)
        leaf = [(x, base - 0.08), ((x + tip[0]) / 2 - side, (base + tip[1]) / 2 - 0.05), tip,
                ((x + tip[0]) / 2 + side, (base + tip[1]) / 2 - 0.05)]  # fmt: skip
        draw.polygon([(px * scale, py * scale) for px, py in leaf], fill=_vary(rng, (62, 112, 66), 26))
    pot = [(x - 0.06, base - 0.1), (x + 0.06, base - 0.1), (x + 0.045, base + 0.04), (x - 0.045, base + 0.04)]
    draw.polygon([(px * scale, py * scale) for px, py in pot], fill=_vary(rng, (176, 110, 78), 30))


def draw_figure(rng: np.random.Generator) -> Board:
    """A person on the product's board, of whom the parts show that the garment does not cover."""
    board = Board(rng)
    skins: tuple[Colour, ...] = ((240, 206, 180), (220, 176, 142), (176, 124, 90), (118, 78, 56), (84, 56, 42))
    skin = _vary(rng, skins[int(rng.integers(len(skins)))], 8)
    hair = _vary(rng, ((40, 30, 26), (96, 62, 40), (190, 150, 92), (70, 66, 66))[int(rng.integers(4))], 10)
    clothes = _vary(rng, ((70, 74, 84), (198, 196, 190), (88, 100, 128), (120, 100, 90))[int(rng.integers(4))], 16)
    long_hair = rng.random() < 0.5
    if long_hair:
        board.add(polygon(mirrored([(0.58, -0.02), (0.6, 0.2), (0.55, 0.26)]), rounding=0.02), hair)
    for side in (-1, 1):
        bend = float(rng.uniform(0.2, 0.28))
        arm: list[Point] = [(0.5 + side * 0.13, 0.21), (0.5 + side * bend, 0.42), (0.5 + side * (bend - 0.04), 0.62)]
        board.add(stroke(arm, 0.056), skin, "round", 0.6)
        board.add(stroke([(0.5 + side * 0.07, 0.5), (0.5 + side * 0.075, 0.99)], 0.105), clothes)
    board.add(polygon(mirrored([(0.56, 0.16), (0.63, 0.2), (0.6, 0.5), (0.62, 0.6)]), rounding=0.02), clothes)
    board.add(stroke([(0.5, 0.1), (0.5, 0.18)], 0.07), skin, "round", 0.5)
    board.add(ellipse(0.5, 0.045, 0.062, 0.08), skin, "round", 0.6)
    board.add(polygon([*arc(0.5, 0.03, 0.068, 0.075, 180, 360), (0.56, 0.03), (0.5, 0.0), (0.44, 0.04)]), hair)
    return board
