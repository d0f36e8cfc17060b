"""A synthetic shop: products in varied poses, light and backgrounds, with exact masks; the seed determines all of it.

It has two stocks: `shop`, drawn flat, and `solids`, three-dimensional objects seen from several sides.

An item depends only on (seed, item number) and a photo only on (seed, item number, photo number), not on how many
others are drawn. All items share one numbered bank of backgrounds, chosen independently of the item, so a background
carries no information about its item.

    photo = render(item, scene)
    image = mask / 255 * product + (1 - mask / 255) * background      (rounded)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from training.data.studio.canvas import BOARD, Board, Colour, Floats, print_pattern
from training.data.studio.products import KINDS, WEARABLE, Look
from training.data.studio.scenes import BACKGROUNDS, draw_background, draw_figure
from training.data.studio.solids import SOLIDS, Solid, make_solid, photograph, rotation
from training.errors import NitamonoError

__all__ = [
    "Item", "Light", "Photo", "Pose", "Scene", "Stock", "check_stock", "draw_background", "make_item", "place_board",
    "random_scene", "render",
]  # fmt: skip

Stock = Literal["shop", "solids"]
_ITEM, _PHOTO, _KINDS, _SOLID, _VIEW, _SOLID_KINDS = 1, 2, 4, 5, 6, 7  # random streams of a seed; scenes use 3
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
    """A product of the shop; `seed`, `number` and `stock` determine its drawing."""

    seed: int
    number: int
    item_id: str
    category: str
    title: str
    colour: str
    second_colour: str
    print: str
    stock: Stock = "shop"


@dataclass(frozen=True)
class Pose:
    """The pose of a product in its photo.

    Args:
        rotation: degrees.
        scale: side of the drawing board relative to the photo's.
        x, y: centre, as fractions of the photo's side.
        shear, mirror: always 0 and False for a solid.
        yaw, pitch: degrees by which a solid is turned about its height, and seen from above.
    """

    rotation: float
    scale: float
    x: float
    y: float
    shear: float
    mirror: bool
    yaw: float = 0.0
    pitch: float = 0.0


@dataclass(frozen=True)
class Light:
    """Exposure (1 is neutral), warmth (-1 cold to 1 warm), direction in degrees, and strength of the falloff."""

    exposure: float
    warmth: float
    direction: float
    strength: float


@dataclass(frozen=True)
class Scene:
    """Everything in a photo except the product itself."""

    pose: Pose
    light: Light
    background_id: int
    figure: int | None  # seed of the person who wears the product; None if nobody does


class Photo(NamedTuple):
    """`image`, `product` and `background` are `(size, size, 3)` uint8, `mask` `(size, size)` uint8."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    product: NDArray[np.uint8]
    background: NDArray[np.uint8]


def category_of(seed: int, number: int, stock: Stock = "shop") -> str:
    """The kind of item `number`; each block of `len(kinds)` consecutive items has every kind once, in random order."""
    kinds, stream = (sorted(KINDS), _KINDS) if stock == "shop" else (sorted(SOLIDS), _SOLID_KINDS)
    block, place = divmod(number, len(kinds))
    return kinds[int(np.random.default_rng([seed, stream, block]).permutation(len(kinds))[place])]


def check_stock(stock: str) -> None:
    """Raise NitamonoError unless the stock exists."""
    if stock not in get_args(Stock):
        raise NitamonoError(f"stock must be one of {', '.join(get_args(Stock))}, not {stock!r}")


def make_item(seed: int, number: int, stock: Stock = "shop") -> Item:
    """Item `number` of a seed's stock.

    Raises:
        NitamonoError: the stock does not exist.
    """
    check_stock(stock)
    item, _ = _paint(seed, number) if stock == "shop" else _build(seed, number)
    return item


def random_scene(item: Item, photo: int) -> Scene:
    """The scene of photo number `photo` of an item."""
    if item.stock == "solids":
        return _scene_of_solid(item, photo)
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
    light = _random_light(rng)
    return Scene(pose, light, background_id, int(rng.integers(10**6)) if worn else None)


def _scene_of_solid(item: Item, photo: int) -> Scene:
    """A view within 60 degrees of the item's front, which all its photos share."""
    front = float(np.random.default_rng([item.seed, _SOLID, item.number, 1]).uniform(0, 360))
    rng = np.random.default_rng([item.seed, _VIEW, item.number, photo])
    pose = Pose(
        rotation=float(rng.normal(0, 8)),
        scale=float(rng.uniform(0.7, 0.95)),
        x=float(0.5 + rng.normal(0, 0.02)),
        y=float(0.5 + rng.normal(0, 0.02)),
        shear=0.0,
        mirror=False,
        yaw=front + float(rng.uniform(-60, 60)),
        pitch=float(rng.uniform(5, 45)),
    )
    return Scene(pose, _random_light(rng), int(rng.integers(BACKGROUNDS)), None)


def _random_light(rng: np.random.Generator) -> Light:
    return Light(
        exposure=float(rng.uniform(0.72, 1.14)),
        warmth=float(rng.normal(0, 0.4)),
        direction=float(rng.uniform(0, 360)),
        strength=float(rng.uniform(0, 0.25)),
    )


def render(item: Item, scene: Scene, size: int = 256) -> Photo:
    """Photograph an item; the product layer and the mask depend on item, pose and light, not on the background."""
    if item.stock == "shop":
        product, alpha = place_board(_paint(item.seed, item.number)[1], scene.pose, size)
    else:
        product, alpha = _photograph(_build(item.seed, item.number)[1], scene, size)
    shine = _illumination(scene.light, size)
    mask = np.round(alpha * 255).astype(np.uint8)
    below = draw_background(item.seed, scene.background_id, size)
    if scene.figure is not None:
        person, cover = place_board(draw_figure(np.random.default_rng(scene.figure)), scene.pose, size)
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


@lru_cache(maxsize=8)
def _build(seed: int, number: int) -> tuple[Item, Solid]:
    rng = np.random.default_rng([seed, _SOLID, number])
    category = category_of(seed, number, "solids")
    named = bool(rng.random() < 0.5)
    colours = [_named_colour(rng) if named else _any_colour(rng) for _ in range(int(rng.integers(2, 5)))]
    print_kind = PRINTS[int(rng.choice(len(PRINTS), p=[0.51, *[0.07] * 7]))]
    solid, what = make_solid(rng, category, colours, print_kind)
    first, second = (_nearest_name(colour) for colour in colours[:2])
    words = f"{PRINT_WORDS[print_kind]}{first} {what}"
    title = words[0].upper() + words[1:]
    item_id = f"solid-{category}-{number:05d}"  # the prefix tells solids from the shop, which has bottles as well
    return Item(seed, number, item_id, category, title, first, second, print_kind, "solids"), solid


def _photograph(solid: Solid, scene: Scene, size: int) -> tuple[Floats, Floats]:
    """Colours `(size, size, 3)` in 0..255 and coverage `(size, size)` in 0..1, lit by the scene's light."""
    pose, angle = scene.pose, np.radians(scene.light.direction)
    lamp = np.array([np.cos(angle), -0.8, 0.6 - 0.4 * np.sin(angle)])
    turn = rotation(pose.yaw, pose.pitch, pose.rotation)
    taken = photograph(solid, turn, lamp / np.linalg.norm(lamp), pose.scale, (pose.x, pose.y), size)
    return taken[..., :3], taken[..., 3]


def _any_colour(rng: np.random.Generator) -> Colour:
    red, green, blue = (int(value) for value in rng.integers(10, 246, 3))
    return (red, green, blue)


def _named_colour(rng: np.random.Generator) -> Colour:
    return _tint(rng, list(COLOURS.values())[int(rng.integers(len(COLOURS)))])


def _nearest_name(colour: Colour) -> str:
    return min(COLOURS, key=lambda name: float(np.square(np.subtract(COLOURS[name], colour)).sum()))


def _tint(rng: np.random.Generator, colour: Colour) -> Colour:
    moved = np.clip(np.asarray(colour) + rng.integers(-12, 13, 3), 0, 255)
    return (int(moved[0]), int(moved[1]), int(moved[2]))


def place_board(board: Board, pose: Pose, size: int) -> tuple[Floats, Floats]:
    """A board warped into the photo: colours `(size, size, 3)` in 0..255 and coverage `(size, size)` in 0..1."""
    angle, step = np.radians(pose.rotation), BOARD / (size * pose.scale)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = step * turn @ np.array([[1, pose.shear], [0, 1]])
    if pose.mirror:
        matrix[0] *= -1
    offset = BOARD / 2 - matrix @ np.array([pose.x * size, pose.y * size])
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    planes = [*np.moveaxis(board.spread(), -1, 0), board.alpha * 255]
    if step > 1:  # the photo is smaller than the board: blur first, against aliasing
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
    """The factor `(size, size, 3)` by which the light multiplies the colours."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    angle = np.radians(light.direction)
    falloff = 1 + light.strength * (np.cos(angle) * x + np.sin(angle) * y) * 2
    tint = np.array([1 + 0.09 * light.warmth, 1.0, 1 - 0.11 * light.warmth], np.float32)
    shine: Floats = (light.exposure * falloff[..., None] * tint).astype(np.float32)
    return shine


def _shadow(alpha: Floats, light: Light, size: int) -> Floats:
    """Share by which the product's shadow darkens the background: one part close and sharp, one wide and soft."""
    angle = np.radians(light.direction)
    dx, dy = (round(-0.03 * size * float(f(angle))) for f in (np.cos, np.sin))
    wide = np.roll(gaussian_filter(alpha, 0.03 * size), (dy + size // 64, dx), (0, 1))
    close = np.roll(gaussian_filter(alpha, 0.008 * size), size // 90, 0)
    return np.clip(0.32 * wide + 0.24 * close, 0, 0.6)
