"""Folders and manifests as sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import write_photos
from training.data.sources import SourceImage, SourceProblem, read_all, read_images, read_source
from training.errors import SourceError


def write_csv(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "catalogue.csv"
    path.write_text(text)
    return path


def only_problem(source: Path) -> SourceProblem:
    images, problems = read_images(source)
    assert (len(images), len(problems)) == (0, 1)
    return problems[0]


def test_a_folder_names_items_by_path_and_categories_by_folder(tmp_path: Path) -> None:
    write_photos(tmp_path / "s", 3)
    (tmp_path / "s/deep/er").mkdir(parents=True)
    (tmp_path / "s/deep/er/x.png").write_bytes(b"x")
    (tmp_path / "s/top.png").write_bytes(b"x")
    (tmp_path / "s/.hidden.png").write_bytes(b"x")
    images, problems = read_images(tmp_path / "s")
    assert problems == []
    assert [(image.item_id, image.category) for image in images] == [
        ("top.png", None),
        ("bag/0000.jpg", "bag"),
        ("deep/er/x.png", "deep/er"),
        ("hat/0001.jpg", "hat"),
        ("mug/0002.jpg", "mug"),
    ]
    assert all(image.path.is_file() for image in images)


def test_a_folder_is_read_in_the_same_order_every_time(photos: Path) -> None:
    assert list(read_source(photos)) == list(read_source(photos))


def test_a_manifest_row_becomes_an_image_with_its_attributes(tmp_path: Path) -> None:
    text = 'item_id,image,mask,title,category,price\n7,a/b.jpg,a/m.png,"Red, bag",bags, 12.50 \n8,c.jpg,,,,\n'
    images, problems = read_images(write_csv(tmp_path / "m", text))
    assert problems == []
    first, second = images
    assert first == SourceImage(
        "7", str(tmp_path / "m/a/b.jpg"), "Red, bag", {"category": "bags", "price": "12.50"}, tmp_path / "m/a/m.png",
        "catalogue.csv row 2",
    )  # fmt: skip
    assert (second.title, second.mask, second.attributes) == (None, None, {})


def test_a_byte_order_mark_and_windows_line_ends_are_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(b"\xef\xbb\xbfitem_id,image\r\na,a.jpg\r\n")
    assert [image.item_id for image in read_images(path)[0]] == ["a"]


def test_jsonl_numbers_become_text(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    rows = [{"item_id": 12, "image": "a.jpg", "price": 3.0, "tags": ["x", "y"], "sale": True, "none": None}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (image,), problems = read_images(path)
    assert problems == []
    assert (image.item_id, image.attributes) == ("12", {"price": "3", "tags": '["x", "y"]', "sale": "True"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",a.jpg", "item_id is empty"),
        ("a,", "image is empty"),
        ("a,../outside.jpg", "outside the manifest's folder"),
        ("a,/etc/passwd", "outside the manifest's folder"),
        ("a,b/../../x.jpg", "outside the manifest's folder"),
        ("a", "1 cells, but the header has 2"),
        ("a,b,c", "3 cells, but the header has 2"),
        ("x" * 513 + ",a.jpg", "item_id has 513 characters; the limit is 512"),
        ("a\tb,a.jpg", "item_id contains the control character U+0009 (tab) at character 2; remove it"),
    ],
)
def test_a_bad_row_is_a_problem_that_names_its_place(tmp_path: Path, row: str, reason: str) -> None:
    problem = only_problem(write_csv(tmp_path / "m", f"item_id,image\n{row}\n"))
    assert problem.where == "catalogue.csv row 2"
    assert reason in problem.reason


def test_a_link_out_of_the_manifests_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.jpg").write_bytes(b"x")
    (tmp_path / "m").mkdir()
    (tmp_path / "m/in.jpg").symlink_to(tmp_path / "out.jpg")
    assert "outside" in only_problem(write_csv(tmp_path / "m", "item_id,image\na,in.jpg\n")).reason


def test_the_same_row_twice_is_kept_once(tmp_path: Path) -> None:
    images, problems = read_images(write_csv(tmp_path / "m", "item_id,image\na,x.jpg\na,y.jpg\na,./x.jpg\n"))
    assert [image.path.name for image in images] == ["x.jpg", "y.jpg"]
    assert problems[0].where == "catalogue.csv row 4"
    assert "catalogue.csv row 2" in problems[0].reason


@pytest.mark.parametrize("line", ["{bad", "[1, 2]", '"text"', "3", "null", "[" * 100_000])
def test_a_bad_json_line_is_a_problem_and_the_next_line_is_read(tmp_path: Path, line: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"item_id": "a", "image": "a.jpg"}\n' + line + '\n{"item_id": "b", "image": "b.jpg"}\n')
    images, problems = read_images(path)
    assert [image.item_id for image in images] == ["a", "b"]
    assert [problem.where for problem in problems] == ["c.jsonl row 2"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", b"id,image\na,b\n", "column 'item_id' is missing; expected item_id,image"),
        ("c.csv", b"item_id,picture\na,b\n", "column 'image' is missing"),
        ("c.csv", b"item_id,image,image\na,b,c\n", "column 'image' occurs twice"),
        ("c.csv", b"", "column 'item_id' is missing"),
        ("c.csv", b"\xff\xfe\x00", "not UTF-8"),
        ("c.csv", b'item_id,"image\na,b\n', "line 1 is not valid CSV"),
        ("c.jsonl", b'{"id": 1}\n', "column 'item_id' is missing"),
        ("c.jsonl", b"\xff\xfe{}", "not UTF-8"),
        ("c.parquet", b"PAR1 nonsense", "not a Parquet file"),
        ("c.xlsx", b"", "expected a folder or a manifest"),
    ],
)
def test_a_source_that_cannot_be_read_raises_at_once(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message) as error:
        list(read_source(tmp_path / name))
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere: no such folder or manifest"):
        read_source(tmp_path / "nowhere")


def test_several_sources_are_one_and_ids_that_clash_are_told_apart(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        (tmp_path / name).mkdir()
        for file in ("same.jpg", f"{name}.jpg"):
            (tmp_path / name / file).write_bytes(b"")
    (tmp_path / "rows.csv").write_text("item_id,image\nblue.jpg,a.jpg\n,b.jpg\n")
    images, problems = read_all([tmp_path / "red", tmp_path / "blue", tmp_path / "rows.csv"])
    assert [image.item_id for image in images] == [
        "red.jpg", "1-red/same.jpg", "2-blue/blue.jpg", "2-blue/same.jpg", "3-rows/blue.jpg",
    ]  # fmt: skip
    assert len(problems) == 1
    assert read_all([tmp_path / "red"]) == read_images(tmp_path / "red")
