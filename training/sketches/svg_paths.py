"""The path data of SVG as lines: https://www.w3.org/TR/SVG2/paths.html."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from training.errors import DrawingError
from training.sketches.strokes import MAX_POINTS, Points

PIECES = 16  # lines of a Bezier curve, and of a quarter of an ellipse
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_SEPARATORS = re.compile(r"[\s,]*")
_COMMAND = re.compile(r"[\s,]*([MmLlHhVvCcSsQqTtAaZz])")
VALUES = {"M": 2, "L": 2, "H": 1, "V": 1, "C": 6, "S": 4, "Q": 4, "T": 2, "A": 7, "Z": 0}
FLAGS = (3, 4)  # values of an arc that are one digit, and may have no separator after them

Point = complex  # x + iy


def number_of(text: str, name: str) -> float:
    """The number of an attribute, in user units or pixels; DrawingError for another unit."""
    found = _NUMBER.fullmatch(text.strip().removesuffix("px"))
    if found is None:
        raise DrawingError(f"has {name}={text[:40]!r}; expected a number in user units")
    return float(found[0])


def numbers_of(text: str, name: str) -> list[float]:
    """The numbers of a list; DrawingError for anything else in it, or too many."""
    values, place = [], _SEPARATORS.match(text).end()  # type: ignore[union-attr]
    while place < len(text):
        found = _NUMBER.match(text, place)
        if found is None:
            raise DrawingError(f"has {text[place : place + 20]!r} in {name}; expected a number")
        values.append(float(found[0]))
        if len(values) > 2 * MAX_POINTS:
            raise DrawingError(f"has more than {MAX_POINTS:,} points; simplify it")
        place = _SEPARATORS.match(text, found.end()).end()  # type: ignore[union-attr]
    return values


def flatten_path(data: str) -> list[Points]:
    """The sub-paths of path data, one stroke each.

    Raises:
        DrawingError: the data is not a path, or has too many points.
    """
    strokes: list[list[Point]] = []
    start = here = before = 0j  # `before` is the last control point of a curve
    last, count = "", 0
    for command, values in _segments(data):
        letter = command.upper()
        origin = 0j if command.isupper() else here
        if letter == "M":
            start = here = origin + complex(*values)
            strokes.append([here])
            count += 1
        else:
            if not strokes or last == "Z":  # after a closed sub-path, the next one begins where it began
                strokes.append([here])
            if letter == "Z":
                points = [start]
            else:
                points, before = _points_of(letter, values, here, origin, _reflected(letter, last, here, before))
            strokes[-1] += points
            here, count = points[-1], count + len(points)
        if count > MAX_POINTS:
            raise DrawingError(f"has more than {MAX_POINTS:,} points; simplify it")
        last = letter
    drawn = [stroke for stroke in strokes if len(stroke) > 1]
    return [np.column_stack([np.real(stroke), np.imag(stroke)]) for stroke in drawn]


def flatten_ellipse(centre: tuple[float, float], radii: tuple[float, float]) -> Points:
    """An ellipse as a closed stroke, clockwise from its right end."""
    angles = np.linspace(0.0, 2.0 * math.pi, 4 * PIECES + 1)
    return np.column_stack([np.cos(angles), np.sin(angles)]) * radii + centre


def _segments(data: str) -> Iterator[tuple[str, list[float]]]:
    """Commands with their values; repeated values repeat the command, and `M` continues as `L`."""
    place, command = 0, ""
    while place < len(data):
        found = _COMMAND.match(data, place)
        if found is not None:
            command, place = found[1], found.end()
        elif not data[place:].strip(" \t\r\n,"):
            return
        elif not command or command in "Zz":
            raise DrawingError(f"has {data[place : place + 20]!r} in a path; expected a command such as M or L")
        values, place = _values(data, place, command.upper())
        yield command, values
        command = {"M": "L", "m": "l"}.get(command, command)


def _values(data: str, place: int, letter: str) -> tuple[list[float], int]:
    values: list[float] = []
    for number in range(VALUES[letter]):
        place = _SEPARATORS.match(data, place).end()  # type: ignore[union-attr]
        if letter == "A" and number in FLAGS and data[place : place + 1] in ("0", "1"):
            values.append(float(data[place]))
            place += 1
            continue
        found = _NUMBER.match(data, place)
        if found is None:
            raise DrawingError(f"has {data[place : place + 20]!r} in a path; {letter} takes {VALUES[letter]} numbers")
        values.append(float(found[0]))
        place = found.end()
    if not all(math.isfinite(value) for value in values):
        raise DrawingError("has a number in a path that is not finite")
    return values, place


def _reflected(letter: str, last: str, here: Point, before: Point) -> Point:
    """The first control point of a smooth curve: that of the curve before it, reflected."""
    follows = last in ("CS" if letter == "S" else "QT")
    return 2.0 * here - before if follows and last else here


def _points_of(
    letter: str, values: list[float], here: Point, origin: Point, reflected: Point
) -> tuple[list[Point], Point]:
    """The points of a segment after its first, and its last control point."""
    if letter in "HV":
        other = (
            complex(values[0] + origin.real, here.imag)
            if letter == "H"
            else complex(here.real, values[0] + origin.imag)
        )
        return [other], other
    if letter == "A":
        end = origin + complex(values[5], values[6])
        return _arc(here, end, values[0], values[1], values[2], bool(values[3]), bool(values[4])), end
    pairs = [origin + complex(*values[first : first + 2]) for first in range(0, len(values), 2)]
    if letter == "L":
        return pairs, pairs[-1]
    controls = [here, *([reflected] if letter in "ST" else []), *pairs]
    return _bezier(controls), controls[-2]


def _bezier(controls: list[Point]) -> list[Point]:
    """Points of a curve with 3 or 4 controls, by De Casteljau's construction."""
    share = np.linspace(0.0, 1.0, PIECES + 1)[1:]
    levels = [np.full(PIECES, control) for control in controls]
    while len(levels) > 1:
        levels = [(1.0 - share) * one + share * other for one, other in zip(levels, levels[1:], strict=False)]
    return [complex(point) for point in levels[0]]


def _arc(start: Point, end: Point, across: float, down: float, turn: float, large: bool, sweep: bool) -> list[Point]:
    """Points of an elliptical arc; https://www.w3.org/TR/SVG2/implnote.html#ArcImplementationNotes."""
    across, down = abs(across), abs(down)
    if start == end or across == 0 or down == 0:
        return [end]
    axis = complex(math.cos(math.radians(turn)), math.sin(math.radians(turn)))
    half = (start - end) / 2.0 * axis.conjugate()
    x, y = half.real / across, half.imag / down
    squared = x * x + y * y
    grown = max(1.0, math.sqrt(squared))  # radii that do not reach are enlarged
    across, down, x, y, squared = across * grown, down * grown, x / grown, y / grown, min(1.0, squared)
    root = math.sqrt(max(0.0, 1.0 / squared - 1.0)) * (-1.0 if large == sweep else 1.0)
    middle = complex(root * y, -root * x)  # centre on the unit circle
    first = math.atan2(y - middle.imag, x - middle.real)
    angle = math.atan2(-y - middle.imag, -x - middle.real) - first
    if sweep and angle < 0:
        angle += 2.0 * math.pi
    elif not sweep and angle > 0:
        angle -= 2.0 * math.pi
    angles = first + angle * np.linspace(0.0, 1.0, max(2, math.ceil(PIECES * abs(angle) / (math.pi / 2)) + 1))[1:]
    centre = complex(middle.real * across, middle.imag * down) * axis + (start + end) / 2.0
    points = (across * np.cos(angles) + 1j * down * np.sin(angles)) * axis + centre
    return [*(complex(point) for point in points[:-1]), end]
