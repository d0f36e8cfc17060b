"""Pictures of a flow over points of the plane: points on their way through its steps, densities and samples."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from training.layers.vector_flow import VectorFlow

SIDE = 256  # pixels of a picture
FINER = 2  # pictures are drawn this much larger, and then reduced
RADIUS = 1.2  # of a point, in pixels
TEXT = 12  # font size
BETWEEN, HELD = 5, 3  # frames from one step to the next, and frames of each end
MOONS = ((0.0, 0.45, 0.75), (0.85, 0.35, 0.1))  # colours of the two moons
SAMPLE = (0.25, 0.25, 0.3)  # colour of samples
SHADES = ((1.0, 1.0, 1.0), (0.75, 0.87, 0.95), (0.25, 0.56, 0.76), (0.05, 0.2, 0.45), (0.02, 0.03, 0.12))
Pixels = NDArray[np.uint8]


class Window:
    """The part of the plane that a picture shows: a square around points, with the y axis upwards."""

    def __init__(self, points: Tensor, margin: float = 0.08) -> None:
        low, high = points.amin(dim=0), points.amax(dim=0)
        self.centre = (low + high) / 2.0
        self.half = (0.5 + margin) * float((high - low).max())

    def pixels(self, points: Tensor, side: int) -> Tensor:
        """Pixel coordinates `(N, 2)` of points, x and y."""
        placed = (points - self.centre) / self.half * torch.tensor([1.0, -1.0])
        return (placed + 1.0) / 2.0 * side

    def grid(self, side: int) -> Tensor:
        """The points `(side * side, 2)` in the middle of the pixels, row by row from the top."""
        across = ((torch.arange(side) + 0.5) / side * 2.0 - 1.0) * self.half
        rows, columns = torch.meshgrid(-across, across, indexing="ij")
        return torch.stack([columns, rows], dim=2).reshape(-1, 2) + self.centre


@torch.no_grad()
def forward_frames(flow: VectorFlow, x: Tensor, moon: Tensor) -> list[Pixels]:
    """Frames of points `(N, 2)` becoming N(0, I), one step after the other, in the colours of their moons."""
    places = [flow(x, layers=number).z for number in range(len(flow) + 1)]
    return _travel(places, [MOONS[number] for number in moon.tolist()], "x, the data", "z, after all steps")


@torch.no_grad()
def inverse_frames(flow: VectorFlow, z: Tensor) -> list[Pixels]:
    """Frames of draws `(N, 2)` from N(0, I) becoming points, the last step undone first, coloured by direction in z."""
    places = [flow.inverse(z, layers=number) for number in range(len(flow) + 1)]
    turns = torch.atan2(z[:, 1], z[:, 0]) / (2.0 * math.pi)
    colours = [colorsys.hsv_to_rgb(turn % 1.0, 0.75, 0.8) for turn in turns.tolist()]
    return _travel(places, colours, "z, drawn from N(0, I)", "x, the samples")


def draw_points(points: Tensor, colours: Sequence[tuple[float, float, float]], window: Window, title: str) -> Pixels:
    """A picture `(SIDE, SIDE, 3)` of points `(N, 2)`."""
    side, radius = FINER * SIDE, FINER * RADIUS
    canvas = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(canvas)
    for (x, y), colour in zip(window.pixels(points, side).tolist(), colours, strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_bytes(colour))
    return _titled(canvas.resize((SIDE, SIDE), Image.Resampling.BOX), title)


def draw_density(log_density: Tensor, highest: float, title: str) -> Pixels:
    """A picture `(SIDE, SIDE, 3)` of a density at the points of `Window.grid`, darkest where it is `highest`."""
    share = (log_density.exp() / highest).clamp(0.0, 1.0).sqrt().reshape(SIDE, SIDE).double().numpy()
    places = np.linspace(0.0, 1.0, len(SHADES))
    channels = [np.interp(share, places, shade) for shade in zip(*SHADES, strict=True)]
    return _titled(Image.fromarray((np.stack(channels, axis=2) * 255.0).round().astype(np.uint8)), title)


def beside(pictures: Sequence[Pixels]) -> Pixels:
    """Pictures of one height in a row."""
    return np.concatenate(pictures, axis=1)


def two_moons(x: Tensor, moon: Tensor, window: Window, title: str) -> Pixels:
    """A picture of points in the colours of their moons."""
    return draw_points(x, [MOONS[number] for number in moon.tolist()], window, title)


def _travel(
    places: Sequence[Tensor], colours: Sequence[tuple[float, float, float]], first: str, last: str
) -> list[Pixels]:
    """Frames of points that move in a straight line from each place to the next, in a window that follows them."""
    steps = len(places) - 1
    frames = [draw_points(places[0], colours, Window(places[0]), first)] * HELD
    for number, (before, after) in enumerate(zip(places[:-1], places[1:], strict=True), start=1):
        for share in torch.linspace(0.0, 1.0, BETWEEN + 1)[1:]:
            points = torch.lerp(before, after, share)
            frames.append(draw_points(points, colours, Window(points), f"step {number} of {steps}"))
    return [*frames, *[draw_points(places[-1], colours, Window(places[-1]), last)] * HELD]


def _titled(picture: Image.Image, title: str) -> Pixels:
    ImageDraw.Draw(picture).text((6, 4), title, fill="#333", font=ImageFont.load_default(TEXT))
    return np.asarray(picture)


def _bytes(colour: tuple[float, float, float]) -> tuple[int, ...]:
    return tuple(round(255 * value) for value in colour)
