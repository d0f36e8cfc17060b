"""The drawing board: antialiased shapes with a cloth, ceramic or metal finish, layered on a transparent ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

BOARD = 320  # pixels of a side of the board
OVER = 3  # supersampling of outlines
SHADOW, BODY, HIGHLIGHT, OUTLINE = 5, 9, 4, 6  # standard deviations in pixels of the blurs
REACH = 4 * BODY  # radius in pixels of the widest blur

Floats = NDArray[np.floating[Any]]
Colour = tuple[int, int, int]
Point = tuple[float, float]  # in units of the board, 0..1, y down
Window = tuple[slice, slice]  # rows and columns of the board
Finish = Literal["cloth", "round", "gloss", "flat"]

_Y, _X = np.mgrid[0:BOARD, 0:BOARD].astype(np.float32) / BOARD


def polygon(points: Sequence[Point], *, rounding: float = 0.0) -> Floats:
    """Coverage `(BOARD, BOARD)` in 0..1 of a polygon whose corners are rounded off by about `rounding`."""
    image = Image.new("L", (BOARD * OVER, BOARD * OVER))
    ImageDraw.Draw(image).polygon([(x * BOARD * OVER, y * BOARD * OVER) for x, y in points], fill=255)
    return _coverage(image, rounding)


def ellipse(cx: float, cy: float, rx: float, ry: float) -> Floats:
    """Coverage `(BOARD, BOARD)` in 0..1 of an ellipse."""
    image = Image.new("L", (BOARD * OVER, BOARD * OVER))
    box = [v * BOARD * OVER for v in (cx - rx, cy - ry, cx + rx, cy + ry)]
    ImageDraw.Draw(image).ellipse(box, fill=255)
    return _coverage(image, 0.0)


def stroke(points: Sequence[Point], width: float) -> Floats:
    """Coverage `(BOARD, BOARD)` in 0..1 of a line through points, with round joints and ends."""
    image = Image.new("L", (BOARD * OVER, BOARD * OVER))
    draw = ImageDraw.Draw(image)
    scaled = [(x * BOARD * OVER, y * BOARD * OVER) for x, y in points]
    pixels = width * BOARD * OVER
    draw.line(scaled, fill=255, width=max(1, round(pixels)), joint="curve")
    for x, y in scaled:
        draw.ellipse([x - pixels / 2, y - pixels / 2, x + pixels / 2, y + pixels / 2], fill=255)
    return _coverage(image, 0.0)


def arc(cx: float, cy: float, rx: float, ry: float, start: float, end: float) -> list[Point]:
    """Points along an ellipse; angles in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, end, 24))
    return [(cx + rx * float(np.cos(a)), cy + ry * float(np.sin(a))) for a in angles]


def mirrored(points: Sequence[Point]) -> list[Point]:
    """Close a right half, given from top to bottom, with its mirror image about the middle of the board."""
    return [*points, *((1 - x, y) for x, y in reversed(points))]


def _coverage(image: Image.Image, rounding: float) -> Floats:
    """Coverage of a drawing made at `OVER` times the board's size; only the part around the shape is processed."""
    coverage: Floats = np.zeros((BOARD, BOARD), np.float32)
    box = image.getbbox()
    if box is None:
        return coverage
    sigma = rounding * BOARD * OVER
    reach = math.ceil(3 * sigma) + 6 if rounding > 0 else 0  # Pillow blurs with three box filters
    left, top = (max(0, (edge - reach) // OVER) for edge in box[:2])
    right, bottom = (min(BOARD, -(-(edge + reach) // OVER)) for edge in box[2:])
    part = image.crop((left * OVER, top * OVER, right * OVER, bottom * OVER))
    if rounding > 0:
        blurred = np.asarray(part.filter(ImageFilter.GaussianBlur(sigma)), dtype=np.float32)
        # A steep ramp about one half is the outline of the blurred shape, with a soft edge of about a pixel.
        part = Image.fromarray(np.clip((blurred - 127.5) * 6 + 127.5, 0, 255).astype(np.uint8))
    # Across and then down: Pillow would choose the order by the shape of the part, and the order decides the rounding.
    narrow = part.resize((right - left, part.height), Image.Resampling.BOX)
    small = narrow.resize((right - left, bottom - top), Image.Resampling.BOX)
    coverage[top:bottom, left:right] = np.asarray(small, dtype=np.float32) / 255
    return coverage


class Board:
    """Product pixels: colour `(BOARD, BOARD, 3)` in 0..255 and coverage `(BOARD, BOARD)` in 0..1.

    Shapes are processed in a window around them; adding a shape changes nothing outside of its window.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.colour: Floats = np.zeros((BOARD, BOARD, 3), np.float32)
        self.alpha: Floats = np.zeros((BOARD, BOARD), np.float32)
        self._folds = _noise(rng, (5, 22)) * 0.6 + _noise(rng, (9, 13)) * 0.4
        self._grain = rng.normal(0, 1, (BOARD, BOARD)).astype(np.float32)
        self._spread: Floats | None = None

    def add(self, shape: Floats, fill: Colour | Floats, finish: Finish = "cloth", depth: float = 1.0) -> None:
        """Add a filled shape on top; `depth` scales its shading and the shadow that it casts on the shapes below."""
        self._spread = None
        window = _window(shape)
        cover, colour = shape[window], self.colour[window]
        pixels = np.broadcast_to(np.asarray(fill, np.float32), self.colour.shape)[window]
        shading = self._shading(cover, window, finish, depth)[..., None]
        lit = np.clip(pixels * shading + _gloss(cover, window, finish), 0, 255)
        if depth > 0 and self.alpha.any():
            shadow = np.clip(gaussian_filter(cover, SHADOW) - cover, 0, 1) * 0.55 * min(depth, 1.0)
            colour *= 1 - shadow[..., None]
        colour += cover[..., None] * (lit - colour)
        self.alpha[window] = cover + self.alpha[window] * (1 - cover)

    def line(self, points: Sequence[Point], width: float = 0.004, darkness: float = 0.45) -> None:
        """Draw a seam or crease: it darkens the colours below and has a fine light edge."""
        self._spread = None
        seam = stroke(points, width)
        self.colour *= 1 - darkness * seam[..., None]
        self.colour += 18 * np.clip(np.roll(seam, 2, axis=0) - seam, 0, 1)[..., None]
        np.clip(self.colour, 0, 255, out=self.colour)

    def hole(self, shape: Floats) -> None:
        """Cut a shape out, so that the background shows through."""
        self._spread = None
        self.alpha *= 1 - shape

    def spread(self) -> Floats:
        """The colours, extended beyond the outline so that a warp never mixes in pixels that are not product."""
        if self._spread is None:
            self._spread = self._extended()
        return self._spread

    def _extended(self) -> Floats:
        extended: Floats = np.zeros_like(self.colour)
        window = _window(self.alpha)
        alpha, colour = self.alpha[window], self.colour[window]
        weight = gaussian_filter(alpha, OUTLINE) + 1e-4
        around = np.stack([gaussian_filter(colour[..., c] * alpha, OUTLINE) for c in range(3)], -1)
        extended[window] = np.where(alpha[..., None] > 0.5, colour, around / weight[..., None])
        return extended

    def _shading(self, cover: Floats, window: Window, finish: Finish, depth: float) -> Floats:
        if finish == "flat":
            return np.ones_like(cover)
        # A body turns away from the light towards its outline.
        inside = np.clip(gaussian_filter(cover, BODY) * 2 - 1, 0, 1)
        shade = 1 - 0.34 * depth * (1 - inside)
        if finish == "cloth":
            shade = shade * (1 + 0.17 * depth * self._folds[window] + 0.018 * self._grain[window])
        else:
            x0, x1 = _extent(cover, window)
            across = np.clip((_X[window] - x0) / max(x1 - x0, 1e-3), 0, 1)
            shade = shade * (1.1 - 0.45 * depth * np.abs(across - 0.36) ** 1.4)
        return shade.astype(np.float32)


def _gloss(cover: Floats, window: Window, finish: Finish) -> Floats:
    if finish not in ("gloss", "round"):
        return np.zeros((1, 1, 1), np.float32)
    x0, x1 = _extent(cover, window)
    across = (_X[window] - x0) / max(x1 - x0, 1e-3)
    strength = 120 if finish == "gloss" else 46
    band = np.exp(-(((across - 0.27) / 0.07) ** 2)) * np.clip(gaussian_filter(cover, HIGHLIGHT) * 2 - 1, 0, 1)
    gloss: Floats = (strength * band)[..., None].astype(np.float32)
    return gloss


def _window(cover: Floats) -> Window:
    """The window around a shape, wide enough for its blurs; the whole board if the shape is empty."""
    rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
    if not len(rows):
        return slice(0, BOARD), slice(0, BOARD)
    return _padded(rows), _padded(columns)


def _padded(places: NDArray[np.intp]) -> slice:
    return slice(max(0, int(places[0]) - REACH), min(BOARD, int(places[-1]) + 1 + REACH))


def _extent(cover: Floats, window: Window) -> tuple[float, float]:
    """The left and right edge of a shape in units of the board."""
    columns = np.flatnonzero(cover.max(axis=0) > 0.5) + window[1].start
    return (float(columns[0]) / BOARD, float(columns[-1]) / BOARD) if len(columns) else (0.0, 1.0)


def _noise(rng: np.random.Generator, cells: tuple[int, int]) -> Floats:
    """Smooth noise of unit scale with the given number of cells down and across."""
    small = Image.fromarray(rng.normal(0, 1, cells).astype(np.float32))
    return np.asarray(small.resize((BOARD, BOARD), Image.Resampling.BICUBIC), dtype=np.float32)


def print_pattern(rng: np.random.Generator, kind: str, first: Colour, second: Colour) -> Floats:
    """A cloth `(BOARD, BOARD, 3)` printed in two colours."""
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return a + _ink(rng, kind)[..., None] * (b - a)


def _ink(rng: np.random.Generator, kind: str) -> Floats:
    """Coverage by the second colour `(BOARD, BOARD)`, 0..1."""
    period = float(rng.uniform(0.035, 0.09))
    ink: Floats = np.zeros_like(_X)
    if kind == "stripes":
        ink = _square(_Y if rng.random() < 0.6 else _X, period, float(rng.uniform(0.3, 0.6)))
    elif kind == "checks":
        ink = 0.5 * (_square(_X, 1.3 * period, 0.45) + _square(_Y, 1.3 * period, 0.45))
    elif kind == "dots":
        row = np.floor(_Y / period)
        dx = (_X / period + 0.5 * (row % 2)) % 1 - 0.5
        dy = (_Y / period) % 1 - 0.5
        ink = np.clip((float(rng.uniform(0.2, 0.34)) - np.hypot(dx, dy)) * 12 + 0.5, 0, 1)
    elif kind == "floral":
        ink = _flowers(rng)
    elif kind == "two-tone":
        ink = np.clip((_Y - float(rng.uniform(0.4, 0.6))) * BOARD, 0, 1)
    elif kind == "gradient":
        ink = np.clip((_Y - 0.15) / 0.7, 0, 1)
    elif kind == "zigzag":
        wave = np.abs((_X / period) % 1 - 0.5) * period
        ink = _square(_Y + wave, 1.2 * period, 0.4)
    return ink


def _square(axis: Floats, period: float, duty: float) -> Floats:
    phase = (axis / period) % 1
    softness = BOARD * period / 2
    wave: Floats = np.clip((duty / 2 - np.abs(phase - 0.5)) * softness + 0.5, 0, 1)
    return wave


def _flowers(rng: np.random.Generator) -> Floats:
    image = Image.new("L", (BOARD * 2, BOARD * 2))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(60, 120))):
        x, y = rng.uniform(0, BOARD * 2, 2)
        size = float(rng.uniform(6, 15))
        turn = float(rng.uniform(0, 2 * np.pi))
        for petal in range(5):
            angle = turn + petal * 2 * np.pi / 5
            px, py = x + size * np.cos(angle), y + size * np.sin(angle)
            draw.ellipse([px - 0.62 * size, py - 0.62 * size, px + 0.62 * size, py + 0.62 * size], fill=230)
        draw.ellipse([x - 0.4 * size, y - 0.4 * size, x + 0.4 * size, y + 0.4 * size], fill=60)
    flowers: Floats = np.asarray(image.resize((BOARD, BOARD), Image.Resampling.BOX), dtype=np.float32) / 255
    return flowers
