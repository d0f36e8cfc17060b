"""SVG files as drawings: shapes, paths, transforms, a round trip, and files that mean harm."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from training.errors import DrawingError, OutputError
from training.sketches.preparing import DrawingPreparation
from training.sketches.sheets import Cell, drawing_svg, sheet_svg, write_sheet
from training.sketches.strokes import Strokes, extent
from training.sketches.svg import read_svg

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'


def read(inner: str) -> Strokes:
    return read_svg(f"{HEAD}{inner}</svg>".encode())


@pytest.mark.parametrize(
    ("inner", "strokes"),
    [
        ('<path d="M1 2 L3 4"/>', [[[1, 2], [3, 4]]]),
        ('<path d="m1,2 3,4-1-1"/>', [[[1, 2], [4, 6], [3, 5]]]),
        ('<path d="M0 0H5V6h-2v-1"/>', [[[0, 0], [5, 0], [5, 6], [3, 6], [3, 5]]]),
        ('<path d="M0 0 1 0 1 1Z M5 5L6 6"/>', [[[0, 0], [1, 0], [1, 1], [0, 0]], [[5, 5], [6, 6]]]),
        ('<path d="M0 0L1 0zL7 7"/>', [[[0, 0], [1, 0], [0, 0]], [[0, 0], [7, 7]]]),
        ('<path d="M.5.5-1e1 2."/>', [[[0.5, 0.5], [-10, 2]]]),
        ('<polyline points="0,0 1,1 2,0"/>', [[[0, 0], [1, 1], [2, 0]]]),
        ('<polygon points="0 0 1 1 2 0"/>', [[[0, 0], [1, 1], [2, 0], [0, 0]]]),
        ('<line x1="1" y2="2px"/>', [[[1, 0], [0, 2]]]),
        ('<rect x="1" width="2" height="3"/>', [[[1, 0], [3, 0], [3, 3], [1, 3], [1, 0]]]),
        ('<g transform="translate(10,20)"><line x2="1" transform="scale(2)"/></g>', [[[10, 20], [12, 20]]]),
        ('<line x2="1" transform="rotate(90 1 1)"/>', [[[2, 0], [2, 1]]]),
        ('<line x2="1" y2="1" transform="matrix(1 2 3 4 5 6)"/>', [[[5, 6], [9, 12]]]),
        ('<line y2="1" transform="skewX(45)"/>', [[[0, 0], [1, 1]]]),
        ('<defs><line id="a" x2="1"/></defs><use xlink:href="#a" x="3" y="4"/>', [[[3, 4], [4, 4]]]),
        ('<line x2="1"/><line x2="9" display="none"/><line x2="9" style="display: none"/>', [[[0, 0], [1, 0]]]),
        ('<rect width="100%" height="100%"/><line x2="1"/><text>no</text>', [[[0, 0], [1, 0]]]),
    ],
)
def test_shapes_and_transforms_by_hand(inner: str, strokes: list[list[list[float]]]) -> None:
    found = read(inner)
    assert len(found) == len(strokes)
    for one, other in zip(found, strokes, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_curves_pass_through_the_points_of_their_formulas() -> None:
    cubic = read('<path d="M0 0C0 8 8 8 8 0S16-8 16 0"/>')[0]
    assert cubic[8].tolist() == [4.0, 6.0] and cubic[24].tolist() == [12.0, -6.0]  # t = 1/2: (P0+3P1+3P2+P3)/8
    quadratic = read('<path d="M0 0Q4 8 8 0T16 0"/>')[0]
    assert quadratic[8].tolist() == [4.0, 4.0] and quadratic[24].tolist() == [12.0, -4.0]


@pytest.mark.parametrize(("large", "sweep"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_arcs_are_on_their_ellipse_on_the_side_that_the_flags_say(large: int, sweep: int) -> None:
    arc = read(f'<path d="M4 0A5 5 0 {large}{sweep}-4 0"/>')[0]
    on_circle = [np.allclose(np.hypot(arc[:, 0], arc[:, 1] - y), 5.0) for y in (3.0, -3.0)]
    assert sum(on_circle) == 1
    highest = arc[np.abs(arc[:, 1]).argmax(), 1]
    assert abs(highest) == pytest.approx(8.0 if large else 2.0, abs=0.1)
    # With sweep 1 angles grow, clockwise on a screen: from the right end to the left one, through larger y.
    assert (highest > 0) == bool(sweep)


def test_circles_and_rotated_ellipses() -> None:
    circle = read('<circle cx="1" cy="2" r="3"/>')[0]
    np.testing.assert_allclose(np.hypot(*(circle - [1, 2]).T), 3.0)
    tilted = read('<path d="M4 0A4 2 90 0 1-4 0"/>')[0]  # its radii do not reach: enlarged by 2
    np.testing.assert_allclose((tilted[:, 0] / 4.0) ** 2 + (tilted[:, 1] / 8.0) ** 2, 1.0)


def test_a_drawing_comes_back_from_its_svg() -> None:
    strokes = [np.array([[0.0, 0.0], [30.0, 5.0], [60.0, 100.0]]), np.array([[5.0, 5.0], [9.0, 1.0]])]
    again = read_svg(drawing_svg(strokes, side=1000.0).encode())
    unit = extent(again) / extent(strokes)
    assert len(again) == 2
    for one, other in zip(again, strokes, strict=True):
        np.testing.assert_allclose((one - again[0][0]) / unit, other, atol=0.02)
    preparation = DrawingPreparation(longest=16)
    np.testing.assert_allclose(preparation.apply(again), preparation.apply(strokes), atol=0.05)


def test_a_dot_is_drawn_and_read() -> None:
    svg = drawing_svg([np.array([[1.0, 1.0]]), np.array([[0.0, 0.0], [9.0, 9.0]])])
    assert [len(stroke) for stroke in read_svg(svg.encode())] == [1, 2]


def test_sheets_have_all_cells_and_escape_their_captions(tmp_path: Path) -> None:
    line = [np.array([[0.0, 0.0], [9.0, 9.0]])]
    rows = [[Cell(line, "a<b&c"), Cell([])], [Cell(line, "d"), Cell(line)]]
    text = sheet_svg(rows)
    assert len(read_svg(text.encode())) == 3 and "a&lt;b&amp;c" in text
    from PIL import Image

    with Image.open(write_sheet(rows, tmp_path / "sheet.png")) as sheet:
        assert np.asarray(sheet.convert("L")).min() < 60
    with pytest.raises(OutputError, match=r"expected a file named \*\.svg or \*\.png"):
        write_sheet(rows, tmp_path / "sheet.gif")


BOMB = '<!DOCTYPE svg [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><svg><text>&b;</text></svg>'
FILE = '<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg><text>&x;</text></svg>'
TEN_TIMES = [f"<use href='#g{number + 1}'/>" * 10 for number in range(6)]
USES = "".join(f"<g id='g{number}'>{uses}</g>" for number, uses in enumerate(TEN_TIMES)) + "<line id='g6' x2='1'/>"
CIRCLE = "<circle r='1'/>"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (BOMB, "declares XML entities, which are not read"),
        (FILE, "declares XML entities, which are not read"),
        (f"{HEAD}{'<g>' * 60}<line x2='1'/>{'</g>' * 60}</svg>", "is nested more than 50 elements deep"),
        (f"{HEAD}{'<g/>' * 20_001}</svg>", "has more than 20,000 elements"),
        (f"{HEAD}{USES}</svg>", "draws more than 20,000 elements by `use`"),
        (f"{HEAD}<g id='a'><use href='#a'/></g></svg>", "has a `use` of a `use` more than 8 deep"),
        (f"{HEAD}<path d='M0 0{' 1 1' * 30_000}'/></svg>", "has more than 20,000 points"),
        (f"{HEAD}<path d='{'M0 0' * 30_000}'/></svg>", "has more than 20,000 points"),
        (f"{HEAD}<polyline points='{'1 ' * 100_000}'/></svg>", "has more than 20,000 points"),
        (f"{HEAD}{CIRCLE * 400}</svg>", "has more than 20,000 points"),
        (f"{HEAD}<path d='M0 0L1e400 1'/></svg>", "has a number in a path that is not finite"),
        (f"{HEAD}<path d='M0 0L1e30 1'/></svg>", "has a coordinate beyond 1,000,000,000"),
        (f"{HEAD}<line x2='1e300' transform='scale(1e300)'/></svg>", "has a coordinate beyond"),
        (f"{HEAD}<line x2='1' transform='skewX(90) scale(1e308)'/></svg>", "has a coordinate beyond"),
        (f"{HEAD}<line x2='50%'/></svg>", "has x2='50%'; expected a number in user units"),
        (f"{HEAD}<path d='M0 0 L x'/></svg>", "in a path; L takes 2 numbers"),
        (f"{HEAD}<path d='12 3'/></svg>", "in a path; expected a command such as M or L"),
        (f"{HEAD}<line x2='1' transform='spin(3)'/></svg>", "has the transform 'spin"),
        (f"{HEAD}</svg>", "has nothing to draw"),
        ("<html/>", "not an SVG file: its root element is 'html'"),
        ("<svg", "is not well-formed"),
        ("", "is not well-formed"),
        ("<?xml version='1.0' encoding='no-such'?><svg/>", "is not well-formed"),
    ],
)
def test_a_file_that_means_harm_or_is_damaged_is_refused_at_once(data: str, message: str) -> None:
    started = time.process_time()
    with pytest.raises(DrawingError, match=message):
        read_svg(data.encode())
    assert time.process_time() - started < 5.0


def test_a_file_of_many_megabytes_is_not_parsed() -> None:
    with pytest.raises(DrawingError, match="larger than 4,194,304 bytes"):
        read_svg(b"<svg>" + b" " * 2**22)
