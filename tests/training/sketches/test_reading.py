"""Sources of drawings: every kind, bad rows that stop nothing, and pickles that are refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.drawings import make_drawings, write_ndjson
from training.errors import SourceError
from training.sketches.reading import read_all_drawings, read_drawings
from training.sketches.strokes import to_stroke3


class Unpickled:
    """Leaves a trace if it is ever unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def write_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def three(**others: Any) -> dict[str, Any]:
    rows = np.array([[0, 0, 0], [5, 5, 1], [0, 0, 0], [9, 0, 0], [0, 9, 1], [1, 1, 1]], dtype=np.int16)
    return {"train_strokes": rows, "train_offsets": np.array([0, 2, 5, 6]), **others}


def test_parts_of_an_npz_are_read_by_name(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz", **three(test_strokes=np.zeros((1, 3)), test_offsets=np.array([0, 1])))
    drawings, problems = read_drawings(path)
    assert [each.item_id for each in drawings] == ["d/train/0", "d/train/1", "d/train/2", "d/test/0"]
    assert problems == []
    assert [stroke.tolist() for stroke in drawings[1].strokes] == [[[0, 0], [9, 0], [9, 9]]]
    assert [each.item_id for each in read_drawings(path, parts=("test",))[0]] == ["d/test/0"]
    assert len(read_drawings(path, parts=("other",))[0]) == 4, "a file without the part is read whole"


def test_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    objects = np.array([Unpickled(trace), None], dtype=object)
    path = write_npz(tmp_path / "cat.npz", train=objects)
    with pytest.raises(SourceError, match="array 'train' is pickled, and unpickling a file can run any code"):
        read_drawings(path)
    beside = write_npz(tmp_path / "beside.npz", **three(valid=objects))
    with pytest.raises(SourceError, match="array 'valid' is pickled"):
        read_drawings(beside)
    assert not trace.exists()


def test_bad_rows_of_an_npz_are_named_and_stop_nothing(tmp_path: Path) -> None:
    rows = np.array([[0, 0, 0], [1, 1, 1], [0, 0, 7], [np.nan, 0, 1], [2, 2, 1]])
    offsets = np.array([0, 2, 3, 4, 5, 5, 99, 3])
    drawings, problems = read_drawings(write_npz(tmp_path / "bad.npz", a_strokes=rows, a_offsets=offsets))
    assert [each.item_id for each in drawings] == ["bad/a/0", "bad/a/3"]
    assert [(problem.where, problem.reason) for problem in problems] == [
        ("bad.npz: a 1", "its third column, pen lifted, has values other than 0 and 1"),
        ("bad.npz: a 2", "it has a value that is not a finite number"),
        ("bad.npz: a 4", "its rows 5 to 5 are not rows of the 5 in a_strokes"),
        ("bad.npz: a 5", "its rows 5 to 99 are not rows of the 5 in a_strokes"),
        ("bad.npz: a 6", "its rows 99 to 3 are not rows of the 5 in a_strokes"),
    ]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "has no drawings; expected arrays PART_strokes"),
        ({"a_strokes": np.zeros((3, 3))}, "a_strokes has no a_offsets beside it"),
        ({"a_strokes": np.zeros((3, 2)), "a_offsets": np.array([0, 3])}, r"a_strokes is float64 \(3, 2\)"),
        ({"a_strokes": np.array([["x"] * 3]), "a_offsets": np.array([0, 1])}, "expected numbers"),
        ({"a_strokes": np.zeros((3, 3)), "a_offsets": np.array([0.0, 3.0])}, "expected whole numbers"),
    ],
)
def test_another_layout_is_named(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        read_drawings(write_npz(tmp_path / "d.npz", **arrays))


def test_a_header_that_promises_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.npz"
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000, 3), }\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a_strokes.npy", data)
        archive.writestr("a_offsets.npy", data)
    with pytest.raises(SourceError, match="a_strokes is 24,000,000,000,000 bytes"):
        read_drawings(path)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY"])
def test_what_is_no_npz_is_named(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(data)
    with pytest.raises(SourceError, match=r"d\.npz: cannot be read as an \.npz file"):
        read_drawings(tmp_path / "d.npz")


def test_a_member_that_is_no_array_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("a_strokes.npy", b"no array")
    with pytest.raises(SourceError, match="'a_strokes' is not an array of NumPy"):
        read_drawings(tmp_path / "d.npz")


def test_quickdraw_lines_are_read_and_bad_ones_named(tmp_path: Path) -> None:
    path = write_ndjson(tmp_path / "d.ndjson", make_drawings(2))
    bad: list[Any] = [
        "no json",
        "[]",
        json.dumps({"drawing": []}),
        json.dumps({"drawing": [[[1, 2], [3]]]}),
        json.dumps({"drawing": [[[1, 2], [3, "4"]]]}),
        json.dumps({"drawing": [[[1], [True]]]}),
        '{"drawing": [[[1' + "0" * 400 + "], [1]]]}",
        '{"drawing": ' + "[" * 100_000,
    ]
    timed = json.dumps({"word": "cat", "drawing": [[[0, 9], [0, 9], [0, 120]]]})
    path.write_text(path.read_text() + "\n".join([*bad, "", timed]), encoding="utf-8")
    drawings, problems = read_drawings(path)
    assert [each.item_id for each in drawings] == ["circle-0", "square-1", "d/12"]
    assert [each.category for each in drawings] == ["circle", "square", "cat"]
    assert drawings[2].strokes[0].tolist() == [[0, 0], [9, 9]]
    assert [problem.where for problem in problems] == [f"d.ndjson: line {number}" for number in range(3, 11)]
    expected = ["", "found list", "list of strokes", "stroke 1 must", "not a number", "not a number", "at most 1e9", ""]
    assert all(text in problem.reason for text, problem in zip(expected, problems, strict=True))


def test_a_folder_has_one_drawing_per_svg_and_its_sub_folder_is_the_category(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "cats").mkdir(parents=True)
    (folder / "cats" / "a.svg").write_text('<svg><line x2="1"/></svg>')
    (folder / "b.svg").write_text("<svg/>")
    (folder / "c.txt").write_text("no drawing")
    (folder / ".hidden.svg").write_text("<svg/>")
    (folder / "d.npz").write_bytes(b"no archive")
    drawings, problems = read_drawings(folder)
    assert [(each.item_id, each.category) for each in drawings] == [("cats/a.svg", "cats")]
    assert [problem.where for problem in problems] == ["b.svg", "c.txt", "d.npz"]
    assert "has nothing to draw" in problems[0].reason and "not a drawing" in problems[1].reason


def test_a_source_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file or folder of drawings"):
        read_drawings(tmp_path / "none.npz")
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(SourceError, match=r"expected drawings: a folder, or a file named \*\.npz"):
        read_drawings(tmp_path / "a.jpg")


def test_the_same_item_id_in_two_sources_denotes_two_items(tmp_path: Path) -> None:
    paths = [write_ndjson(tmp_path / f"{name}.ndjson", make_drawings(1)) for name in "ab"]
    assert [each.item_id for each in read_all_drawings(paths)[0]] == ["1-a/circle-0", "2-b/circle-0"]


def test_the_sketches_of_the_shared_data_are_read() -> None:
    path = Path(__file__).parents[4] / "shared/data/sketches-short_kanji.npz"
    if not path.exists():
        pytest.skip("needs ../shared/data/sketches-short_kanji.npz")
    drawings, problems = read_drawings(path, parts=("test",))
    assert len(drawings) == 500 and problems == []
    with np.load(path) as arrays:
        rows = arrays["test_strokes"][: arrays["test_offsets"][1]].astype(np.float64)
    rows[0, :2] = 0.0  # where a drawing begins
    np.testing.assert_array_equal(to_stroke3(drawings[0].strokes), rows)
