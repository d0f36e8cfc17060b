"""Read a drawing from an SVG file: the outlines of its shapes, in the order of the file, curves as lines.

Scalable Vector Graphics 2, https://www.w3.org/TR/SVG2/. Read are `path`, `polyline`, `polygon`, `line`, `rect`,
`circle`, `ellipse` and `use`, with `transform`; fills, text, images and style sheets are not. A file cannot make the
reader do much work: its bytes, elements, nesting and points are limited, and entities are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from training.errors import DrawingError
from training.sketches.strokes import MAX_POINTS, Points, Strokes, without_repeats
from training.sketches.svg_paths import flatten_ellipse, flatten_path, number_of, numbers_of

MAX_BYTES = 2**22
SNIFFED = 4096  # bytes
MAX_ELEMENTS = 20_000  # of the file, and that are drawn, where `use` draws one again
MAX_DEPTH = 50
MAX_USES = 8  # of a `use` that draws a `use`
MAX_COORDINATE = 1e9
GROUPS = ("svg", "g", "a", "switch")
Matrix = NDArray[np.float64]  # (2, 3)


@dataclass
class _Element:
    name: str
    attributes: dict[str, str]
    children: list[_Element] = field(default_factory=list)

    def number(self, name: str, default: float = 0.0) -> float:
        return number_of(self.attributes[name], name) if name in self.attributes else default

    @property
    def is_hidden(self) -> bool:
        style = self.attributes.get("style", "").replace(" ", "")
        return self.attributes.get("display") == "none" or "display:none" in style


def is_svg(data: bytes) -> bool:
    """Whether a file seems to be SVG: XML whose first kilobytes have an `svg` element, perhaps with a prefix."""
    head = data[:SNIFFED].removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(b"<") and re.search(rb"<(\w+:)?svg[\s>/]", head) is not None


def read_svg(data: bytes) -> Strokes:
    """The strokes of an SVG file, in its user units.

    Raises:
        DrawingError: the file is not SVG, has nothing to draw, or exceeds a limit; the message says which.
    """
    if len(data) > MAX_BYTES:
        raise DrawingError(f"is larger than {MAX_BYTES:,} bytes; simplify it")
    root = _parse(data)
    if root.name != "svg":
        raise DrawingError(f"is not an SVG file: its root element is {root.name[:40]!r}")
    strokes = _Reader(root).strokes()
    if not strokes:
        raise DrawingError("has nothing to draw: no path, polyline, polygon, line, rect, circle or ellipse")
    return strokes


def _parse(data: bytes) -> _Element:
    """The elements of an XML document; no external file is ever opened."""
    root = _Element("", {})
    stack, counted = [root], 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal counted
        counted += 1
        if counted > MAX_ELEMENTS:
            raise DrawingError(f"has more than {MAX_ELEMENTS:,} elements; simplify it")
        if len(stack) > MAX_DEPTH:
            raise DrawingError(f"is nested more than {MAX_DEPTH} elements deep; ungroup it")
        element = _Element(_local(name), {_local(key): value for key, value in attributes.items()})
        stack[-1].children.append(element)
        stack.append(element)

    def entity(*_: object) -> None:
        raise DrawingError("declares XML entities, which are not read; save it without a document type")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: stack.pop()
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(data, True)
    except DrawingError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as exc:
        raise DrawingError(f"is not well-formed ({exc})") from exc
    return root.children[0]


def _local(name: str) -> str:
    return name.rpartition(":")[2]


class _Reader:
    """Collects the strokes of the elements under a root."""

    def __init__(self, root: _Element) -> None:
        self._root = root
        self._by_id = {each.attributes["id"]: each for each in _all(root) if "id" in each.attributes}
        self._strokes: Strokes = []
        self._points = 0
        self._drawn = 0

    def strokes(self) -> Strokes:
        self._draw(self._root, np.eye(2, 3), 0)
        return self._strokes

    def _draw(self, element: _Element, outer: Matrix, uses: int) -> None:
        self._drawn += 1
        if self._drawn > MAX_ELEMENTS:
            raise DrawingError(f"draws more than {MAX_ELEMENTS:,} elements by `use`; simplify it")
        if element.is_hidden:
            return
        matrix = _compose(outer, _matrix(element.attributes.get("transform", "")))
        if element.name in GROUPS:
            for child in element.children:
                self._draw(child, matrix, uses)
        elif element.name == "use":
            self._use(element, matrix, uses)
        elif element.name in SHAPES:
            for stroke in SHAPES[element.name](element):
                self._add(stroke, matrix)

    def _use(self, element: _Element, matrix: Matrix, uses: int) -> None:
        target = self._by_id.get(element.attributes.get("href", "").removeprefix("#"))
        if target is None:
            return
        if uses == MAX_USES:
            raise DrawingError(f"has a `use` of a `use` more than {MAX_USES} deep; simplify it")
        shift = np.array([[1.0, 0.0, element.number("x")], [0.0, 1.0, element.number("y")]])
        self._draw(target, _compose(matrix, shift), uses + 1)

    def _add(self, stroke: Points, matrix: Matrix) -> None:
        if not len(stroke):
            return
        self._points += len(stroke)
        if self._points > MAX_POINTS:
            raise DrawingError(f"has more than {MAX_POINTS:,} points; simplify it")
        with np.errstate(all="ignore"):
            moved = stroke @ matrix[:, :2].T + matrix[:, 2]
        if not bool((np.abs(moved) <= MAX_COORDINATE).all()):
            raise DrawingError(f"has a coordinate beyond {MAX_COORDINATE:,.0f}")
        self._strokes.append(without_repeats(moved))


def _all(element: _Element) -> Iterator[_Element]:
    yield element
    for child in element.children:
        yield from _all(child)


def _compose(outer: Matrix, inner: Matrix) -> Matrix:
    with np.errstate(all="ignore"):
        turned = outer[:, :2] @ inner[:, :2]
        moved = outer[:, :2] @ inner[:, 2] + outer[:, 2]
    return np.column_stack([turned, moved])


_TRANSFORM = re.compile(r"\s*,?\s*([A-Za-z]+)\s*\(([^)]*)\)")
COUNTS = {"matrix": (6,), "translate": (1, 2), "scale": (1, 2), "rotate": (1, 3), "skewX": (1,), "skewY": (1,)}


def _matrix(text: str) -> Matrix:
    """The matrix of a `transform` attribute."""
    matrix, place = np.eye(2, 3), 0
    while text[place:].strip():
        found = _TRANSFORM.match(text, place)
        if found is None:
            raise DrawingError(f"has the transform {text[:80]!r}, which is not one of SVG")
        name, values = found[1], numbers_of(found[2], "transform")
        if name not in COUNTS or len(values) not in COUNTS[name]:
            raise DrawingError(f"has the transform {found[0][:80]!r}, which is not one of SVG")
        matrix, place = _compose(matrix, _one_transform(name, values)), found.end()
    return matrix


def _one_transform(name: str, values: list[float]) -> Matrix:
    if name == "matrix":
        return np.array(values).reshape(3, 2).T
    if name == "translate":
        return np.array([[1.0, 0.0, values[0]], [0.0, 1.0, values[1] if len(values) > 1 else 0.0]])
    if name == "scale":
        return np.array([[values[0], 0.0, 0.0], [0.0, values[-1], 0.0]])
    angle = math.radians(math.fmod(values[0], 360.0))
    if name == "rotate":
        turn = np.array([[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]])
        centre = np.array(values[1:] or [0.0, 0.0])
        turn[:, 2] = centre - turn[:, :2] @ centre
        return turn
    slope = math.tan(angle)
    return np.array([[1.0, slope, 0.0], [0.0, 1.0, 0.0]] if name == "skewX" else [[1.0, 0.0, 0.0], [slope, 1.0, 0.0]])


def _polyline(element: _Element) -> list[Points]:
    values = numbers_of(element.attributes.get("points", ""), "points")
    return [np.array(values[: len(values) // 2 * 2]).reshape(-1, 2)]


def _polygon(element: _Element) -> list[Points]:
    points = _polyline(element)[0]
    return [np.concatenate([points, points[:1]])]


def _line(element: _Element) -> list[Points]:
    ends = [[element.number("x1"), element.number("y1")], [element.number("x2"), element.number("y2")]]
    return [np.array(ends)]


def _rect(element: _Element) -> list[Points]:
    """A rectangle, with sharp corners; one whose size is in percent is a background, and not drawn."""
    if any("%" in element.attributes.get(name, "") for name in ("width", "height")):
        return []
    left, top = element.number("x"), element.number("y")
    width, height = element.number("width"), element.number("height")
    if not (width > 0 and height > 0):
        return []
    corners = [(0, 0), (width, 0), (width, height), (0, height), (0, 0)]
    return [np.array(corners, dtype=np.float64) + (left, top)]


def _ellipse(element: _Element) -> list[Points]:
    radius = element.number("r")
    across, down = element.number("rx", radius), element.number("ry", radius)
    if not (across > 0 and down > 0):
        return []
    return [flatten_ellipse((element.number("cx"), element.number("cy")), (across, down))]


SHAPES: dict[str, Callable[[_Element], list[Points]]] = {
    "path": lambda element: flatten_path(element.attributes.get("d", "")),
    "polyline": _polyline,
    "polygon": _polygon,
    "line": _line,
    "rect": _rect,
    "circle": _ellipse,
    "ellipse": _ellipse,
}
