"""A synthetic shop: products in varied pose, light and background, with exact masks; deterministic by seed.

An item is drawn from (seed, item number) and a photo from (seed, item number, photo number), so neither depends on how
many others there are. Backgrounds come from a numbered bank that all items share and that is independent of what they
show, so nothing about an item can be told from its background.

    photo = render(item, scene)
    image = mask / 255 * product + (1 - mask / 255) * background      (rounded)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from training.data.studio.canvas import BOARD, Board, Colour, Floats, print_pattern
from training.data.studio.products import KINDS, WEARABLE, Look
from training.data.studio.scenes import BACKGROUNDS, draw_background, draw_figure

__all__ = ["Item", "Light", "Photo", "Pose", "Scene", "draw_background", "make_item", "random_scene", "render"]

_ITEM, _PHOTO, _KINDS = 1, 2, 4  # the streams of a seed; scenes have 3
COLOURS: dict[str, Colour] = {
    "red": (184, 44, 50), "navy": (36, 52, 104), "mustard": (220, 174, 66), "green": (50, 116, 84),
    "white": (238, 236, 230), "black": (46, 46, 50), "pink": (222, 134, 164), "sky blue": (128, 172, 210),
    "brown": (122, 84, 58), "grey": (142, 146, 150), "purple": (110, 74, 140), "orange": (222, 124, 56),
    "beige": (212, 190, 158), "teal": (40, 122, 130),
}  # fmt: skip
PRINTS = ("plain", "stripes", "checks", "dots", "floral", "two-tone", "gradient", "zigzag")
PRINT_WORDS = {
    "plain": "", "stripes": "striped ", "checks": "checked ", "dots": "dotted ", "floral": "floral ",
    "two-tone": "two-tone ", "gradient": "shaded ", "zigzag": "zigzag ",
}  # fmt: skip


@dataclass(frozen=True)
class Item:
    """A product of the shop; `number` and `seed` say all that is needed to draw it."""

    seed: int
    number: int
    item_id: str
    category: str
    title: str
    colour: str
    second_colour: str
    print: str


@dataclass(frozen=True)
class Pose:
    """How a product lies in the photo: degrees, size of its board to the photo's, centre, and shear."""

    rotation: float
    scale: float
    x: float
    y: float
    shear: float
    mirror: bool


@dataclass(frozen=True)
class Light:
    """Exposure (1 is neutral), warmth (-1 cold to 1 warm), direction in degrees and its strength."""

    exposure: float
    warmth: float
    direction: float
    strength: float


@dataclass(frozen=True)
class Scene:
    """Everything in a photo but the product."""

    pose: Pose
    light: Light
    background_id: int
    figure: int | None  # the seed of the person who wears it; None where nobody does


class Photo(NamedTuple):
    """`image`, `product` and `background` are `(size, size, 3)` uint8, `mask` `(size, size)` uint8."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    product: NDArray[np.uint8]
    background: NDArray[np.uint8]


def category_of(seed: int, number: int) -> str:
    """The kind of item `number`: every run of as many items as there are kinds holds each once, in its own order."""
    kinds = sorted(KINDS)
    turn, place = divmod(number, len(kinds))
    return kinds[int(np.random.default_rng([seed, _KINDS, turn]).permutation(len(kinds))[place])]


def make_item(seed: int, number: int) -> Item:
    """Item `number` of the shop of a seed."""
    item, _ = _paint(seed, number)
    return item


def random_scene(item: Item, photo: int) -> Scene:
    """The scene of an item's photo `photo`."""
    rng = np.random.default_rng([item.seed, _PHOTO, item.number, photo])
    background_id = int(rng.integers(BACKGROUNDS))
    worn = bool(rng.random() < 0.3) and item.category in WEARABLE
    pose = Pose(
        rotation=float(rng.normal(0, 3 if worn else 9)),
        scale=float(rng.uniform(0.8, 1.0) if worn else rng.uniform(0.72, 1.05)),
        x=float(0.5 + rng.normal(0, 0.03)),
        y=float(0.5 + rng.normal(0, 0.025)),
        shear=float(rng.normal(0, 0.04)),
        mirror=bool(rng.random() < 0.5),
    )
    light = Light(
        exposure=float(rng.uniform(0.72, 1.14)),
        warmth=float(rng.normal(0, 0.4)),
        direction=float(rng.uniform(0, 360)),
        strength=float(rng.uniform(0, 0.25)),
    )
    return Scene(pose, light, background_id, int(rng.integers(10**6)) if worn else None)


def render(item: Item, scene: Scene, size: int = 256) -> Photo:
    """Photograph an item. One item, pose and light give one product layer and mask on every background."""
    _, board = _paint(item.seed, item.number)
    product, alpha = _place(board, scene.pose, size)
    shine = _illumination(scene.light, size)
    mask = np.round(alpha * 255).astype(np.uint8)
    below = draw_background(item.seed, scene.background_id, size)
    if scene.figure is not None:
        person, cover = _place(draw_figure(np.random.default_rng(scene.figure)), scene.pose, size)
        below = below + cover[..., None] * (person - below)
    below = below * (1 - _shadow(alpha, scene.light, size)[..., None])
    product8 = np.clip(np.round(product * shine), 0, 255).astype(np.uint8)
    below8 = np.clip(np.round(below * shine), 0, 255).astype(np.uint8)
    weight = (mask / 255.0)[..., None]
    image = np.round(weight * product8 + (1 - weight) * below8).astype(np.uint8)
    return Photo(image, mask, product8, below8)


@lru_cache(maxsize=8)
def _paint(seed: int, number: int) -> tuple[Item, Board]:
    rng = np.random.default_rng([seed, _ITEM, number])
    category = category_of(seed, number)
    names = list(COLOURS)
    first, second = (names[int(n)] for n in rng.choice(len(names), 2, replace=False))
    print_kind = PRINTS[int(rng.choice(len(PRINTS), p=[0.3, *[0.1] * 7]))]
    base, accent = (_tint(rng, COLOURS[name]) for name in (first, second))
    board = Board(rng)
    what = KINDS[category](rng, board, Look(base, accent, print_pattern(rng, print_kind, base, accent)))
    words = f"{PRINT_WORDS[print_kind]}{first} {what}"
    title = words[0].upper() + words[1:]
    item = Item(seed, number, f"{category}-{number:05d}", category, title, first, second, print_kind)
    return item, board


def _tint(rng: np.random.Generator, colour: Colour) -> Colour:
    moved = np.clip(np.asarray(colour) + rng.integers(-12, 13, 3), 0, 255)
    return (int(moved[0]), int(moved[1]), int(moved[2]))


def _place(board: Board, pose: Pose, size: int) -> tuple[Floats, Floats]:
    """A board warped into the photo: colours `(size, size, 3)` in 0..255 and coverage `(size, size)` in 0..1."""
    angle, step = np.radians(pose.rotation), BOARD / (size * pose.scale)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = step * turn @ np.array([[1, pose.shear], [0, 1]])
    if pose.mirror:
        matrix[0] *= -1
    offset = BOARD / 2 - matrix @ np.array([pose.x * size, pose.y * size])
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    planes = [*np.moveaxis(board.spread(), -1, 0), board.alpha * 255]
    if step > 1:  # the photo is smaller than the board: what lies between its pixels must not be skipped
        planes = [gaussian_filter(plane, 0.45 * (step - 1)) for plane in planes]
    warped = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32)).transform(
                (size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
            )
        )
        for plane in planes
    ]
    return np.stack(warped[:3], -1), np.clip(warped[3] / 255, 0, 1)


def _illumination(light: Light, size: int) -> Floats:
    """What the scene's light multiplies every colour by, `(size, size, 3)`."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    angle = np.radians(light.direction)
    falloff = 1 + light.strength * (np.cos(angle) * x + np.sin(angle) * y) * 2
    tint = np.array([1 + 0.09 * light.warmth, 1.0, 1 - 0.11 * light.warmth], np.float32)
    shine: Floats = (light.exposure * falloff[..., None] * tint).astype(np.float32)
    return shine


def _shadow(alpha: Floats, light: Light, size: int) -> Floats:
    """How much the product darkens what lies behind it: close and sharp, and wide and soft away from the light."""
    angle = np.radians(light.direction)
    dx, dy = (round(-0.03 * size * float(f(angle))) for f in (np.cos, np.sin))
    wide = np.roll(gaussian_filter(alpha, 0.03 * size), (dy + size // 64, dx), (0, 1))
    close = np.roll(gaussian_filter(alpha, 0.008 * size), size // 90, 0)
    return np.clip(0.32 * wide + 0.24 * close, 0, 0.6)
