"""Random abstract shapes with exact masks, so that a finder learns items of unknown kinds.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.backgrounds import checks, clouds, fabric, flat, gradient, stripes, wood

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Draw = Callable[[np.random.Generator, int], Floats]
FILLS: tuple[Draw, ...] = (flat, flat, gradient, clouds, stripes, checks, fabric, wood)
OVERSAMPLED = 2  # factor at which outlines are drawn, for smooth edges


def draw_shape(rng: np.random.Generator, size: int, material: Draw | None = None) -> Pixels:
    """A shaded shape `(size, size, 4)` uint8 RGBA.

    Args:
        material: draws further fills, such as textures.
    """
    side = OVERSAMPLED * size
    outline = SILHOUETTES[int(rng.integers(len(SILHOUETTES)))](rng, side)
    if rng.random() < 0.35:  # most manufactured objects have a symmetry
        outline = np.maximum(outline, outline[:, ::-1])
    if rng.random() < 0.2:
        _pierce(rng, outline)
    alpha = np.asarray(cv2.resize(outline, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    colours = _fill(rng, size, material)
    for _ in range(int(rng.integers(0, 4))):
        _paint_part(rng, colours, alpha, material)
    shaded: Floats = colours * _relief(rng, alpha)[..., None] + _gloss(rng, size)[..., None]
    return np.dstack([np.clip(np.round(shaded), 0, 255).astype(np.uint8), alpha])


def blob(rng: np.random.Generator, side: int) -> Pixels:
    """A closed curve whose radius is a random Fourier series."""
    angle = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    orders = np.arange(1, 9)
    strength = rng.normal(0, 1, 8) * rng.uniform(0.1, 0.45) / orders ** rng.uniform(0.6, 1.6)
    waves = np.cos(orders[:, None] * angle + rng.uniform(0, 2 * np.pi, (8, 1)))
    radius = np.clip(1.0 + strength @ waves, 0.15, 2.5)
    return _filled(rng, side, radius * np.cos(angle), radius * np.sin(angle))


def polygon(rng: np.random.Generator, side: int) -> Pixels:
    """A regular or irregular polygon with sharp or rounded corners."""
    corners = int(rng.integers(3, 10))
    angle = (
        np.sort(rng.uniform(0, 2 * np.pi, corners)) if rng.random() < 0.6 else np.arange(corners) * 2 * np.pi / corners
    )
    radius = rng.uniform(0.5, 1.0, corners) if rng.random() < 0.6 else np.ones(corners)
    shape = _filled(rng, side, radius * np.cos(angle), radius * np.sin(angle))
    return _rounded(shape, rng.uniform(0, 0.06) * side)


def superellipse(rng: np.random.Generator, side: int) -> Pixels:
    """Boxes, barrels, lozenges: |x / a|^n + |y / b|^n <= 1."""
    angle = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    power = 2.0 / rng.uniform(0.7, 9.0)
    x, y = (np.sign(wave) * np.abs(wave) ** power for wave in (np.cos(angle), np.sin(angle)))
    taper = 1.0 + rng.uniform(-0.4, 0.4) * y
    return _filled(rng, side, x * taper, y)


def assembly(rng: np.random.Generator, side: int) -> Pixels:
    """Connected parts, like limbs, handles, legs or stems."""
    canvas = np.zeros((side, side), np.uint8)
    at = rng.uniform(0.3, 0.7, 2) * side
    for _ in range(int(rng.integers(2, 8))):
        length, width = rng.uniform(0.12, 0.5) * side, rng.uniform(0.02, 0.22) * side
        turn = rng.uniform(0, 2 * np.pi)
        to = np.clip(at + length * np.array([np.cos(turn), np.sin(turn)]), 0.05 * side, 0.95 * side)
        middle = tuple(int(v) for v in (at + to) / 2)
        kind = int(rng.integers(3))
        if kind == 0:
            cv2.line(canvas, _point(at), _point(to), 255, max(1, int(width)), cv2.LINE_AA)
        elif kind == 1:
            axes = (max(1, int(length / 2)), max(1, int(width)))
            cv2.ellipse(canvas, middle, axes, float(np.degrees(turn)), 0, 360, 255, -1, cv2.LINE_AA)
        else:
            corners = cv2.boxPoints((middle, (float(length), float(2 * width)), float(np.degrees(turn))))
            cv2.fillConvexPoly(canvas, corners.astype(np.int32), 255, cv2.LINE_AA)
        at = to if rng.random() < 0.5 else np.array(middle, float)
    return canvas


def noise(rng: np.random.Generator, side: int) -> Pixels:
    """The largest island of thresholded smooth noise."""
    cells = int(rng.integers(3, 8))
    field = cv2.resize(rng.normal(0, 1, (cells, cells)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    islands = (field + 1.2 - 8.0 * (x**2 + y**2) > 0).astype(np.uint8)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(islands)
    if count < 2:
        return blob(rng, side)
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    return _rounded((labels == largest).astype(np.uint8) * 255, 0.01 * side)


def ribbon(rng: np.random.Generator, side: int) -> Pixels:
    """A curved band of constant width, like cords, rings, hooks or frames."""
    count = int(rng.integers(3, 7))
    knots = rng.uniform(0.1, 0.9, (count, 2)) * side
    along = np.linspace(0, count - 1, 80)
    path = np.stack([np.interp(along, np.arange(count), knots[:, axis]) for axis in range(2)], axis=1)
    if count > 3:
        path = np.asarray(cv2.GaussianBlur(path, (1, 0), 0, sigmaY=float(rng.uniform(1, 9))), np.float64)
    canvas = np.zeros((side, side), np.uint8)
    width = max(2, int(rng.uniform(0.02, 0.14) * side))
    cv2.polylines(canvas, [path.astype(np.int32)], bool(rng.random() < 0.4), 255, width, cv2.LINE_AA)
    return canvas


SILHOUETTES = (blob, polygon, superellipse, superellipse, assembly, assembly, noise, ribbon)


def _filled(rng: np.random.Generator, side: int, x: NDArray[np.floating], y: NDArray[np.floating]) -> Pixels:
    """Stretch, rotate and fill a curve around the origin."""
    stretch, turn = np.exp(rng.normal(0, 0.45)), rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else 0.0
    points = np.stack([x * stretch, y], axis=1) @ np.array(
        [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    )
    points = (points / np.abs(points).max() * 0.45 + 0.5) * side
    canvas = np.zeros((side, side), np.uint8)
    cv2.fillPoly(canvas, [points.astype(np.int32)], 255, cv2.LINE_AA)
    return canvas


def _point(at: NDArray[np.floating]) -> tuple[int, int]:
    return int(at[0]), int(at[1])


def _rounded(shape: Pixels, sigma: float) -> Pixels:
    if sigma < 0.5:
        return shape
    soft = cv2.GaussianBlur(shape, (0, 0), sigma).astype(np.float32)
    return np.asarray(np.clip((soft - 127.5) * max(1.0, sigma) + 127.5, 0, 255), np.uint8)


def _pierce(rng: np.random.Generator, outline: Pixels) -> None:
    """Cut a hole, as in rings and handles."""
    side = len(outline)
    rows, columns = np.nonzero(outline > 127)
    if not len(rows):
        return
    place = int(rng.integers(len(rows)))
    axes = (max(1, int(rng.uniform(0.03, 0.18) * side)), max(1, int(rng.uniform(0.03, 0.18) * side)))
    centre = (int(columns[place]), int(rows[place]))
    cv2.ellipse(outline, centre, axes, float(rng.uniform(0, 180)), 0, 360, 0, -1, cv2.LINE_AA)


def _fill(rng: np.random.Generator, size: int, material: Draw | None) -> Floats:
    if material is not None and rng.random() < 0.5:
        return material(rng, size)
    return FILLS[int(rng.integers(len(FILLS)))](rng, size)


def _paint_part(rng: np.random.Generator, colours: Floats, alpha: Pixels, material: Draw | None) -> None:
    """Paint a part in another material, like a label, a lid, a sole or a stripe."""
    size = len(alpha)
    part = SILHOUETTES[int(rng.integers(len(SILHOUETTES)))](rng, size)
    scale, x, y = rng.uniform(0.3, 1.2), *rng.uniform(-0.4, 0.4, 2) * size
    moving = np.array([[scale, 0, x + (1 - scale) * size / 2], [0, scale, y + (1 - scale) * size / 2]])
    cover = cv2.warpAffine(part, moving, (size, size))[..., None].astype(np.float32) / 255.0
    colours += cover * (_fill(rng, size, material) - colours)


def _relief(rng: np.random.Generator, alpha: Pixels) -> Floats:
    """Shading of a body that is thicker in the middle, lit from a random side."""
    size = len(alpha)
    if rng.random() < 0.25:
        return np.ones((size, size), np.float32)
    depth = cv2.distanceTransform((alpha > 127).astype(np.uint8), cv2.DIST_L2, 3)
    height = np.sqrt(np.minimum(depth, rng.uniform(0.05, 0.4) * size))
    height = cv2.GaussianBlur(height, (0, 0), max(0.8, 0.015 * size))
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * cv2.Sobel(height, cv2.CV_32F, 1, 0) + np.sin(angle) * cv2.Sobel(height, cv2.CV_32F, 0, 1)
    return np.asarray(np.clip(1.0 + rng.uniform(0.03, 0.35) * slope, 0.35, 1.6), np.float32)


def _gloss(rng: np.random.Generator, size: int) -> Floats:
    """A highlight to be added to the colours; zero for a matte shape."""
    if rng.random() < 0.6:
        return np.zeros((size, size), np.float32)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    along = (x - rng.uniform(0.2, 0.8)) ** 2 / rng.uniform(0.001, 0.05)
    across = (y - rng.uniform(0.2, 0.8)) ** 2 / rng.uniform(0.001, 0.05)
    return np.asarray(rng.uniform(30, 160) * np.exp(-along - across), dtype=np.float32)
