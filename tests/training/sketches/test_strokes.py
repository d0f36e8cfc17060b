"""Formats of drawings: round trips, simplification, preparation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from training.errors import DrawingError
from training.sketches.preparing import SIDE, DrawingPreparation, deviation_of_offsets
from training.sketches.strokes import (
    MAX_POINTS,
    Points,
    Strokes,
    beginning,
    extent,
    from_stroke3,
    from_stroke5,
    simplify,
    to_stroke3,
    to_stroke5,
)

NUMBERS = st.integers(-500, 500).map(float)
STROKES = st.lists(
    st.integers(1, 9).flatmap(lambda count: arrays.arrays(np.float64, (count, 2), elements=NUMBERS)),
    min_size=1,
    max_size=5,
)


@given(STROKES)
def test_strokes_come_back_from_stroke3_and_stroke5_moved_to_the_origin(strokes: Strokes) -> None:
    rows = to_stroke3(strokes)
    assert rows[0, :2].tolist() == [0.0, 0.0]
    longest = len(rows) + 3
    rows5 = to_stroke5(rows, longest)
    assert rows5.shape == (longest, 5) and (rows5[:, 2:].sum(axis=1) == 1.0).all()
    np.testing.assert_array_equal(from_stroke5(rows5), rows)
    again = from_stroke3(from_stroke5(rows5))
    assert len(again) == len(strokes)
    for one, other in zip(again, strokes, strict=True):
        np.testing.assert_allclose(one, other - strokes[0][0])


def test_rows_by_hand() -> None:
    rows = to_stroke3([np.array([[5.0, 5.0], [8.0, 9.0]]), np.array([[8.0, 10.0]])])
    assert rows.tolist() == [[0, 0, 0], [3, 4, 1], [0, 1, 1]]
    padded = to_stroke5(rows, 5)
    assert padded.tolist() == [[0, 0, 1, 0, 0], [3, 4, 0, 1, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]
    with pytest.raises(ValueError, match="a drawing of 3 points needs 4 rows, more than 3"):
        to_stroke5(rows, 3)


@given(arrays.arrays(np.float64, st.tuples(st.integers(2, 40), st.just(2)), elements=NUMBERS), st.floats(0.1, 50.0))
def test_no_point_is_further_than_epsilon_from_a_simplified_stroke(stroke: Points, epsilon: float) -> None:
    kept = simplify(stroke, epsilon)
    np.testing.assert_array_equal(kept[[0, -1]], stroke[[0, -1]])
    for point in stroke:
        assert min(_distance(point, *pair) for pair in zip(kept, kept[1:], strict=False)) <= epsilon + 1e-9


def _distance(point: Points, start: Points, end: Points) -> float:
    """To the nearest of many points of a segment: a slow and simple oracle, up to its grid."""
    along = end - start
    squared = float(along @ along)
    share = 0.0 if squared == 0 else min(1.0, max(0.0, float((point - start) @ along) / squared))
    return float(np.linalg.norm(point - start - share * along))


def test_simplification_keeps_corners_and_drops_what_lies_on_lines() -> None:
    stroke = np.array([[0, 0], [1, 0.1], [2, 0], [5, 0], [5, 5], [5, 9]], dtype=np.float64)
    assert simplify(stroke, 0.5).tolist() == [[0, 0], [5, 0], [5, 9]]
    closed = np.array([[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]], dtype=np.float64)
    np.testing.assert_array_equal(simplify(closed, 2.0), closed)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e5])
def test_the_unit_and_the_place_of_a_drawing_do_not_matter(unit: float) -> None:
    drawing = [np.array([[0, 0], [3, 1], [10, 4]]), np.array([[2, 2], [2, 8.0]])]
    preparation = DrawingPreparation(longest=16, scale=30.0)
    moved = [unit * (stroke + 7.0) for stroke in drawing]
    np.testing.assert_allclose(preparation.apply(moved), preparation.apply(drawing), atol=1e-4)
    again = preparation.strokes_of(preparation.apply(moved))
    assert extent(again) == pytest.approx(SIDE, rel=1e-5)


def test_a_drawing_with_too_many_points_is_simplified_further_and_never_cut() -> None:
    angles = np.linspace(0.0, 40.0, 3000)
    spiral = [np.column_stack([angles * np.cos(angles), angles * np.sin(angles)])]
    preparation = DrawingPreparation(longest=20, epsilon=0.1)
    rows = preparation.apply(spiral)
    assert 10 < int((rows[:, 4] < 0.5).sum()) < 20 and rows[-1, 4] == 1.0
    np.testing.assert_allclose(
        preparation.strokes_of(rows)[0][-1], (spiral[0][-1] - spiral[0][0]) * SIDE / extent(spiral), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("strokes", "message"),
    [
        ([], "has no strokes: draw at least one line"),
        ([np.empty((0, 2))], "has no strokes"),
        ([np.array([[0.0, np.nan]])], "stroke 1 has a coordinate that is not a number of at most 1e9"),
        ([np.zeros((1, 2)), np.array([[0.0, 2e9]])], "stroke 2 has a coordinate"),
        ([np.zeros((MAX_POINTS + 1, 2))], "has 20,001 points; at most 20,000 are read"),
        ([np.eye(2)] * 5, "has 5 strokes, which take at least 10 points; the model takes up to 7"),
    ],
)
def test_what_cannot_be_a_drawing_is_refused(strokes: Strokes, message: str) -> None:
    with pytest.raises(DrawingError, match=message):
        DrawingPreparation(longest=8).apply(strokes)


def test_a_dot_and_a_straight_line_are_drawings() -> None:
    preparation = DrawingPreparation(longest=8)
    assert (preparation.apply([np.array([[4.0, 4.0]])])[:, 4] < 0.5).sum() == 1
    assert preparation.apply([np.array([[4.0, 4.0], [4.0, 9.0]])])[1, :2].tolist() == [0.0, SIDE]


def test_the_deviation_is_of_dx_and_dy_together() -> None:
    assert deviation_of_offsets([np.array([[3.0, -3.0, 0], [3.0, -3.0, 1]])]) == 3.0
    assert deviation_of_offsets([np.zeros((3, 3))]) == 1.0


def test_a_beginning_has_the_first_points() -> None:
    strokes = [np.arange(8.0).reshape(4, 2), np.arange(8.0).reshape(4, 2)]
    assert [len(stroke) for stroke in beginning(strokes, 0.75)] == [4, 2]
    assert [len(stroke) for stroke in beginning(strokes, 0.5)] == [4]
    assert [len(stroke) for stroke in beginning(strokes, 0.0)] == [1]
    assert [len(stroke) for stroke in beginning(strokes, 1.0)] == [4, 4]


@pytest.mark.parametrize(("field", "value"), [("longest", 1), ("longest", 1001), ("epsilon", -1.0), ("scale", 0.0)])
def test_a_preparation_refuses_values_out_of_range(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        DrawingPreparation(**{field: value})  # type: ignore[arg-type]
