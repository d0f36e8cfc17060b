"""Three-dimensional products: boxes, bottles, bowls, toys, tools and others, photographed from several sides.

A solid consists of parts (boxes, turned shapes, rings), and a part of textured surface patches. It is drawn by
projecting a dense grid of points of each patch that faces the camera; at each pixel, the nearest point wins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from training.data.studio.canvas import BOARD, Colour, Floats, print_pattern

OVER = 2  # supersampling of the drawing
DENSITY = 1.7  # points of a patch per side of a drawn pixel, at the patch's largest extent
LENS = 5.0  # distance of the camera, in radii of the solid
Paint = Callable[[], Floats]  # a texture, `(BOARD, BOARD, 3)` in 0..255, for the next part


@dataclass(frozen=True)
class Patch:
    """A surface over (u, v) in [0, 1]: points `(..., 3)`, z up, and a texture."""

    at: Callable[[Floats, Floats], Floats]
    texture: Floats
    extents: tuple[float, float]  # greatest lengths along u and along v


@dataclass
class Solid:
    """A solid's patches, in its own coordinates.

    Args:
        gloss: strength of its highlight, 0..1.
    """

    gloss: float = 0.0
    patches: list[Patch] = field(default_factory=list)

    def box(self, size: Floats, centre: Floats, paint: Paint, turn: Floats | None = None) -> None:
        """A box with a texture on each face."""
        half = np.asarray(size, np.float64) / 2
        for axis in range(3):
            for side in (-1.0, 1.0):
                across, along = _sides(axis, side)
                extents = (2 * float(half[across]), 2 * float(half[along]))
                self._add(_face(half, axis, side), paint(), centre, turn, extents)

    def turned(self, profile: Floats, centre: Floats, paint: Paint, turn: Floats | None = None) -> None:
        """A profile `(n, 2)` of radius and height, turned about the z axis; the texture goes once around."""
        extents = (2 * np.pi * float(profile[:, 0].max()), float(np.hypot(*np.diff(profile, axis=0).T).sum()))
        self._add(_lathe(np.asarray(profile, np.float64)), paint(), centre, turn, extents)

    def ring(self, radius: float, thickness: float, centre: Floats, paint: Paint, turn: Floats | None = None) -> None:
        """A torus about the y axis."""
        extents = (2 * np.pi * (radius + thickness), 2 * np.pi * thickness)
        self._add(_torus(radius, thickness), paint(), centre, turn, extents)

    def _add(
        self,
        at: Callable[[Floats, Floats], Floats],
        texture: Floats,
        centre: Floats,
        turn: Floats | None,
        extents: tuple[float, float],
    ) -> None:
        matrix = np.eye(3) if turn is None else turn
        offset = np.asarray(centre, np.float64)
        self.patches.append(Patch(lambda u, v: at(u, v) @ matrix.T + offset, texture, extents))


def _sides(axis: int, side: float) -> tuple[int, int]:
    """The axes of u and v on a face, ordered so that its normal points outwards."""
    return ((axis + 1) % 3, (axis + 2) % 3) if side > 0 else ((axis + 2) % 3, (axis + 1) % 3)


def _face(half: Floats, axis: int, side: float) -> Callable[[Floats, Floats], Floats]:
    across, along = _sides(axis, side)

    def at(u: Floats, v: Floats) -> Floats:
        points = np.empty((*u.shape, 3))
        points[..., axis] = side * half[axis]
        points[..., across] = (2 * u - 1) * half[across]
        points[..., along] = (2 * v - 1) * half[along]
        return points

    return at


def _lathe(profile: Floats) -> Callable[[Floats, Floats], Floats]:
    steps = np.hypot(*np.diff(profile, axis=0).T)
    way = np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()

    def at(u: Floats, v: Floats) -> Floats:
        radius, height = np.interp(v, way, profile[:, 0]), np.interp(v, way, profile[:, 1])
        return np.stack([radius * np.cos(2 * np.pi * u), radius * np.sin(2 * np.pi * u), height], -1)

    return at


def _torus(radius: float, thickness: float) -> Callable[[Floats, Floats], Floats]:
    def at(u: Floats, v: Floats) -> Floats:
        reach = radius + thickness * np.cos(2 * np.pi * v)
        x, z = reach * np.cos(2 * np.pi * u), reach * np.sin(2 * np.pi * u)
        return np.stack([x, -thickness * np.sin(2 * np.pi * v), z], -1)

    return at


def rotation(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Floats:
    """Turns about z, then x, then y; degrees."""
    a, b, c = np.radians([yaw, pitch, roll])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_y = np.array([[np.cos(c), 0, np.sin(c)], [0, 1, 0], [-np.sin(c), 0, np.cos(c)]])
    turned: Floats = about_y @ about_x @ about_z
    return turned


def photograph(
    solid: Solid, turn: Floats, light: Floats, fill: float, centre: tuple[float, float], size: int
) -> Floats:
    """Photograph a solid from the front (-y); its larger side spans `fill` of the photo, centred at `centre`.

    Args:
        turn: rotation of the solid.
        light: direction towards the lamp, of unit length.

    Returns:
        `(size, size, 4)` float32: colours in 0..255, undefined at coverage 0, and coverage in 0..1.
    """
    pixels = size * OVER
    coarse = np.linspace(0, 1, 24)
    grid = np.meshgrid(coarse, coarse, indexing="ij")
    rough = np.concatenate([(patch.at(*grid) @ turn.T).reshape(-1, 3) for patch in solid.patches])
    middle = 0.5 * (rough.min(0) + rough.max(0))
    radius = float(np.linalg.norm(rough - middle, axis=1).max())
    flat = _project(rough - middle, radius)
    low, high = flat.min(0), flat.max(0)
    zoom = fill * pixels / float((high - low).max())
    shift = np.asarray(centre) * pixels - zoom * 0.5 * (low + high)
    drawn = [_points(patch, turn, middle, radius, zoom, light, solid.gloss) for patch in solid.patches]
    place = np.concatenate([d[0] for d in drawn]) * zoom + shift
    depth, colour = (np.concatenate([d[n] for d in drawn]) for n in (1, 2))
    column, row = np.floor(place).astype(np.int64).T
    inside = (column >= 0) & (column < pixels) & (row >= 0) & (row < pixels)
    column, row, depth, colour = column[inside], row[inside], depth[inside], colour[inside]
    far_to_near = np.argsort(-depth, kind="stable")
    canvas = np.zeros((pixels * pixels, 4), np.float32)
    canvas[(row * pixels + column)[far_to_near], :3] = colour[far_to_near]  # the nearest point is written last
    canvas[row * pixels + column, 3] = 1.0
    canvas[:, :3] *= canvas[:, 3:]
    small: Floats = canvas.reshape(size, OVER, size, OVER, 4).mean((1, 3))
    small[..., :3] /= np.maximum(small[..., 3:], 1e-6)
    return small


def _project(points: Floats, radius: float) -> Floats:
    """Photo coordinates, y down, of points around the origin."""
    nearness = LENS * radius / (LENS * radius + points[:, 1])
    return np.stack([points[:, 0] * nearness, -points[:, 2] * nearness], 1)


def _points(
    patch: Patch, turn: Floats, middle: Floats, radius: float, zoom: float, light: Floats, gloss: float
) -> tuple[Floats, Floats, Floats]:
    """Unscaled photo coordinates, depths and colours of the points of a patch that face the camera."""
    counts = [int(np.clip(DENSITY * zoom * extent, 12, 2000)) for extent in patch.extents]
    u, v = np.meshgrid(*((np.arange(count) + 0.5) / count for count in counts), indexing="ij")
    points = patch.at(u, v) @ turn.T - middle
    normal = np.cross(np.gradient(points, axis=0), np.gradient(points, axis=1))
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal /= np.maximum(length, 1e-12)
    towards = np.array([0.0, -LENS * radius, 0.0]) - points
    towards /= np.linalg.norm(towards, axis=-1, keepdims=True)
    faces = ((normal * towards).sum(-1) > 0) & (length[..., 0] > 1e-12)
    points, normal, towards = points[faces], normal[faces], towards[faces]
    rows = ((1 - v[faces]) * (BOARD - 1)).astype(np.int64)
    columns = (u[faces] * (BOARD - 1)).astype(np.int64)
    lit = 0.55 + 0.5 * np.clip(normal @ light, 0, 1)
    half = towards + light
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    shine = 160 * gloss * np.clip((normal * half).sum(-1), 0, 1) ** 24
    colour = np.clip(patch.texture[rows, columns] * lit[:, None] + shine[:, None], 0, 255)
    return _project(points, radius), points[:, 1], colour


def label(rng: np.random.Generator, ground: Floats, inks: list[Colour]) -> Floats:
    """Print a label of rectangles, discs, bands, lines and letters on a ground."""
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 6))):
        ink = inks[int(rng.integers(len(inks)))]
        x, y = rng.uniform(0, 0.8 * BOARD, 2)
        w, h = rng.uniform(0.1, 0.55, 2) * BOARD
        box = (x, y, x + w, y + h)
        match int(rng.integers(5)):
            case 0:
                draw.rectangle(box, fill=ink)
            case 1:
                draw.ellipse(box, fill=ink)
            case 2:
                draw.rectangle((0, y, BOARD, y + 0.3 * h), fill=ink)
            case 3:
                draw.line((x, y, x + w, y + h), fill=ink, width=int(rng.integers(4, 26)))
            case _:
                letters = "".join(chr(int(code)) for code in rng.integers(65, 91, int(rng.integers(2, 7))))
                draw.text((x, y), letters, fill=ink, font_size=float(rng.uniform(30, 90)))
    return np.asarray(image, dtype=np.float32)


def _smooth_profile(rng: np.random.Generator, low: float, high: float, height: float) -> Floats:
    """A closed profile whose radius varies smoothly between two values along the height."""
    knots = rng.uniform(low, high, 5)
    z = np.linspace(0, 1, 40)
    t = z * (len(knots) - 1)
    at = np.minimum(t.astype(int), len(knots) - 2)
    s = (1 - np.cos(np.pi * (t - at))) / 2
    radius = knots[at] * (1 - s) + knots[at + 1] * s
    return np.concatenate([[[0, 0]], np.stack([radius, z * height], 1), [[0, height]]])


def _can(radius: float, height: float) -> Floats:
    bevel = 0.06 * min(radius, height)
    return np.array(
        [(0, 0), (radius - bevel, 0), (radius, bevel), (radius, height - bevel), (radius - bevel, height), (0, height)]
    )


def _ball(radius: float, height: float) -> Floats:
    angle = np.linspace(-np.pi / 2, np.pi / 2, 30)
    return np.stack([np.maximum(radius * np.cos(angle), 0), 0.5 * height * (1 + np.sin(angle))], 1)


def box(rng: np.random.Generator, solid: Solid, paint: Paint) -> str:
    size = rng.uniform(0.25, 1.0, 3) * (1, 0.8, 1.2)
    solid.box(size, np.zeros(3), paint)
    return "flat box" if size.min() < 0.35 else "box"


def can(rng: np.random.Generator, solid: Solid, paint: Paint) -> str:
    radius, height = float(rng.uniform(0.2, 0.5)), float(rng.uniform(0.35, 1.2))
    solid.turned(_can(radius, height), np.zeros(3), paint)
    return "tall can" if height > 2.6 * radius else "can"


def bottle(rng: np.random.Generator, solid: Solid, paint: Paint) -> str:
    body, neck, height = float(rng.uniform(0.18, 0.36)), float(rng.uniform(0.06, 0.14)), float(rng.uniform(0.7, 1.3))
    shoulder = float(rng.uniform(0.5, 0.75))
    profile = [(0, 0), (0.9 * body, 0), (body, 0.04), (body, shoulder * height), (neck, (shoulder + 0.12) * height)]
    solid.turned(np.array([*profile, (neck, 0.93 * height), (0, 0.93 * height)]), np.zeros(3), paint)
    solid.turned(_can(1.15 * neck, 0.09 * height), np.array([0, 0, 0.92 * height]), paint)
    return "bottle"


def vase(rng: np.random.Generator, solid: Solid, paint: Paint) -> str:
    solid.turned(_smooth_profile(rng, 0.12, 0.5, float(rng.uniform(0.6, 1.3))), np.zeros(3), paint)
    return "vase"


def bowl(rng: np.random.Generator, solid: Solid, paint: Paint) -> str:
    radius, height, wall = float(rng.uniform(0.4, 0.7)), float(rng.uniform(0.2, 0.5)), 0.04
    angle = np.linspace(0, np.pi / 2, 20)
    power = float(rng.uniform(0.4, 1.4))
    outer = np.stack([radius * np.sin(angle) ** power, height * (1 - np.cos(angle))], 1)
    inner = np.stack([np.maximum(outer[::-1, 0] - wall, 0), np.maximum(outer[::-1, 1], wall)], 1)
    solid.turned(np.concatenate([outer, inner]), np.zeros(3), paint)
    return "bowl"


def cup(rng: np.random.Generator, solid: Solid, paint: Paint) -> str:
    foot, rim, height = float(rng.uniform(0.2, 0.4)), float(rng.uniform(0.28, 0.42)), float(rng.uniform(0.4, 0.9))
    profile = [(0, 0), (foot, 0), (rim, height), (rim - 0.04, height), (foot - 0.04, 0.05), (0, 0.05)]
    solid.turned(np.array(profile), np.zeros(3), paint)
    for side in (1, -1)[: int(rng.integers(0, 3))]:
        centre = np.array([side * 0.5 * (foot + rim), 0, 0.5 * height])
        solid.ring(0.3 * height, 0.05, centre, paint)
    return "cup"


def ball(rng: np.random.Generator, solid: Solid, paint: Paint) -> str:
    radius = float(rng.uniform(0.4, 0.6))
    flat = float(rng.uniform(0.7, 1.5))
    solid.turned(_ball(radius, 2 * radius * flat), np.zeros(3), paint)
    return "ball" if 0.9 < flat < 1.1 else "egg"


def _part(rng: np.random.Generator, solid: Solid, paint: Paint, size: Floats, centre: Floats, turn: Floats) -> None:
    """Add a box, a rod or an egg of about the given size."""
    match int(rng.integers(3)):
        case 0:
            solid.box(size, centre, paint, turn)
        case 1:
            solid.turned(_can(size[0] / 2, size[2]), centre - turn @ np.array([0, 0, size[2] / 2]), paint, turn)
        case _:
            solid.turned(_ball(size[0] / 2, size[2]), centre - turn @ np.array([0, 0, size[2] / 2]), paint, turn)


def toy(rng: np.random.Generator, solid: Solid, paint: Paint) -> str:
    """A body with mirrored pairs of parts, and usually a head."""
    body = rng.uniform(0.35, 0.8, 3)
    _part(rng, solid, paint, body, np.zeros(3), rotation(0))
    for _ in range(int(rng.integers(1, 4))):
        size = rng.uniform(0.1, 0.45, 3) * (0.7, 0.7, 1.2)
        centre = rng.uniform(0.3, 0.6, 3) * np.array([1, rng.choice([-1, 0, 1]), rng.choice([-1, 1])]) * body * 1.2
        lean = rng.uniform(-50, 50, 2)
        state = rng.bit_generator.state
        for side in (1, -1):  # same random draws on both sides
            rng.bit_generator.state = state
            _part(rng, solid, paint, size, centre * (side, 1, 1), rotation(0, lean[0], side * lean[1]))
    if rng.random() < 0.7:
        _part(rng, solid, paint, rng.uniform(0.25, 0.5, 3), np.array([0, 0, 0.62 * body[2]]), rotation(0))
    return "toy"


def tool(rng: np.random.Generator, solid: Solid, paint: Paint) -> str:
    """A long handle with one to three parts across it."""
    length, width = float(rng.uniform(0.8, 1.4)), float(rng.uniform(0.08, 0.2))
    solid.turned(_smooth_profile(rng, 0.35 * width, 0.6 * width, length), np.array([0, 0, -length / 2]), paint)
    for _ in range(int(rng.integers(1, 4))):
        size = rng.uniform(0.12, 0.5, 3) * (1, 0.6, 1)
        centre = np.array([rng.normal(0, 0.08), 0, rng.choice([-0.5, 0.5, 0.3]) * length])
        _part(rng, solid, paint, size, centre, rotation(0, 0, float(rng.uniform(40, 110))))
    return "tool"


def stool(rng: np.random.Generator, solid: Solid, paint: Paint) -> str:
    """A seat on four legs, half of them with a back."""
    width, depth, height = rng.uniform(0.5, 0.9, 3)
    thick, leg = float(rng.uniform(0.06, 0.2)), float(rng.uniform(0.04, 0.1))
    if rng.random() < 0.5:
        solid.box(np.array([width, depth, thick]), np.array([0, 0, height]), paint)
    else:
        solid.turned(_can(width / 2, thick), np.array([0, 0, height - thick / 2]), paint)
        depth = width * 0.7
        width = width * 0.7
    for x in (-1, 1):
        for y in (-1, 1):
            foot = np.array([x * (width / 2 - leg), y * (depth / 2 - leg), 0])
            solid.turned(_can(leg / 2, height), foot, paint)
    if rng.random() < 0.5:
        tall = float(rng.uniform(0.3, 0.7))
        solid.box(np.array([width, leg, tall]), np.array([0, depth / 2, height + tall / 2]), paint)
        return "chair"
    return "stool"


def wheel(rng: np.random.Generator, solid: Solid, paint: Paint) -> str:
    """A ring, in most cases with a hub and spokes."""
    thickness = float(rng.uniform(0.06, 0.22))
    solid.ring(0.5, thickness, np.zeros(3), paint)
    if rng.random() < 0.6:
        spokes = int(rng.integers(2, 6))
        for spoke in range(spokes):
            turn = rotation(0, 0, 180 * spoke / spokes)
            solid.turned(_can(0.05, 1.0), turn @ np.array([0, 0, -0.5]), paint, turn)
        solid.turned(_ball(0.14, 0.28), np.array([0, 0, -0.14]), paint)
    return "wheel"


SOLIDS: dict[str, Callable[[np.random.Generator, Solid, Paint], str]] = {
    "ball": ball, "bottle": bottle, "bowl": bowl, "box": box, "can": can, "cup": cup, "stool": stool, "tool": tool,
    "toy": toy, "vase": vase, "wheel": wheel,
}  # fmt: skip


def make_solid(rng: np.random.Generator, kind: str, colours: list[Colour], print_kind: str) -> tuple[Solid, str]:
    """A solid of the given kind and colours, and its description in words."""
    solid = Solid(gloss=float(rng.choice([0.0, 0.3, 0.8])))
    labelled = float(rng.uniform(0, 1))

    def paint() -> Floats:
        first, second = (colours[int(n)] for n in (0 if rng.random() < 0.6 else 1, rng.integers(len(colours))))
        ground = print_pattern(rng, print_kind, first, second)
        return label(rng, ground, colours) if rng.random() < labelled else ground

    what = SOLIDS[kind](rng, solid, paint)
    return solid, what
