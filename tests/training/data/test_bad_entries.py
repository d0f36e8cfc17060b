"""One bad row or entry of a source is set aside with its reason; the others are read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.data.sources import SourceProblem, read_images


def read_csv(folder: Path, content: str | bytes) -> tuple[list[str], list[SourceProblem]]:
    path = folder / "c.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    images, problems = read_images(path)
    return [image.item_id for image in images], problems


HEADER = "item_id,image,title\n"
BAD_ROWS: dict[str, tuple[str | bytes, str]] = {
    "a cell of 140,000 characters": (f'x,x.jpg,"{"y" * 140_000}"', "title has 140000 characters; the limit is 131072"),
    "a cell of two million characters": (f'x,x.jpg,"{"y" * 2_000_000}"', "field larger than field limit"),
    "a quote inside a cell": ('x,x.jpg,"12" wide"', "not valid CSV (',' expected after '\"')"),
    "a NUL": ("x,x.jpg,a\0b", "title contains the control character U+0000 (NUL) at character 2; remove it"),
    "a byte of Latin-1": (b"x,x.jpg,Caf\xe9", "title contains U+DCE9 at character 4, which is not valid UTF-8"),
    "a cell too few": ("x,x.jpg", "the row has 2 cells, but the header has 3"),
    "a cell too many": ("x,x.jpg,t,more", "the row has 4 cells, but the header has 3"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_bad_csv_row_is_set_aside(tmp_path: Path, case: str, end: bytes) -> None:
    row, reason = BAD_ROWS[case]
    raw = row if isinstance(row, bytes) else row.encode()
    content = HEADER.encode() + b"a,a.jpg,\n" + raw + end + b"b,b.jpg,\n"
    ids, problems = read_csv(tmp_path, content.replace(b"\r\n", b"\n").replace(b"\n", end))
    assert ids == ["a", "b"]
    assert [problem.where for problem in problems] == ["c.csv row 3"]
    assert reason in problems[0].reason


def test_a_quote_that_is_never_closed_takes_only_its_own_row(tmp_path: Path) -> None:
    ids, problems = read_csv(tmp_path, HEADER + 'a,a.jpg,\nx,x.jpg,"24 inch\nb,b.jpg,\n\nc,c.jpg,"two\nlines"\nx,,\n')
    assert ids == ["a", "b", "c"]
    assert [problem.where for problem in problems] == ["c.csv row 3", "c.csv row 8"]


def test_excels_empty_columns_and_rows_are_left_out(tmp_path: Path) -> None:
    text = "item_id,image,colour,,,\na,a.jpg,red,,,\n,,,,,\n , ,,,,\nb,b.jpg,blue\nc,c.jpg,,,,,,\nd,d.jpg,,,a note,\n"
    path = tmp_path / "c.csv"
    path.write_text(text)
    images, problems = read_images(path)
    assert problems == []
    assert [(image.item_id, image.attributes) for image in images] == [
        ("a", {"colour": "red"}), ("b", {"colour": "blue"}), ("c", {}), ("d", {}),
    ]  # fmt: skip


def test_the_index_column_of_pandas_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(",item_id,image\n0,a,a.jpg\n1,b,b.jpg\n")
    images, _ = read_images(tmp_path / "c.csv")
    assert [(image.item_id, image.attributes) for image in images] == [("a", {}), ("b", {})]


def test_attributes_of_one_name_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("item_id,image,tag,tag,tag (2),tag\na,a.jpg,x,y,z,w\n")
    (image,), problems = read_images(tmp_path / "c.csv")
    assert problems == []
    assert image.attributes == {"tag": "x", "tag (2)": "y", "tag (2) (2)": "z", "tag (3)": "w"}


def test_a_bad_first_line_of_jsonl_does_not_hide_the_others(tmp_path: Path) -> None:
    lines = ['{"item_id": "x"}', "nonsense", "{}", '{"item_id": null, "image": ""}', '{"item_id": "a", "image": "a"}']
    lines += ['{"item_id": "y", "image": "y", "image": "z"}', '{"item_id": ' + "1" * 5000 + ', "image": "b"}']
    (tmp_path / "c.jsonl").write_bytes("\n".join([*lines, ""]).encode() + b'{"item_id": "caf\xe9"}\n')
    images, problems = read_images(tmp_path / "c.jsonl")
    assert [image.item_id for image in images] == ["a"]
    assert [problem.where for problem in problems] == [f"c.jsonl row {number}" for number in (1, 2, 6, 7, 8)]
    reasons = [problem.reason for problem in problems]
    assert reasons[0].startswith("image is empty") and "not valid JSON" in reasons[1]
    assert "'image' occurs twice" in reasons[2] and "not valid JSON" in reasons[3] and "UTF-8" in reasons[4]


def test_a_damaged_row_group_of_parquet_is_one_problem(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    path = tmp_path / "c.parquet"
    ids = [f"item number {n}" for n in range(30)]
    table = pa.table({"item_id": ids, "image": [f"{n}.jpg" for n in range(30)]})
    pyarrow.parquet.write_table(table, path, row_group_size=10, compression="gzip", use_dictionary=False)
    column = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset
    data[start + 40 : start + column.total_compressed_size] = bytes(column.total_compressed_size - 40)
    path.write_bytes(data)
    images, problems = read_images(path)
    assert [image.item_id for image in images] == ids[:10] + ids[20:]
    assert [problem.where for problem in problems] == ["c.parquet row 11"]
    assert problems[0].reason.startswith("rows 11 to 20 cannot be read (")


def test_links_in_a_circle_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "up").symlink_to(".")
    (tmp_path / "dangling.jpg").symlink_to("nothing.jpg")
    images, problems = read_images(tmp_path)
    assert [image.item_id for image in images] == ["a.jpg", "dangling.jpg"]
    assert [problem.item_id for problem in problems] == ["loop", "one", "two"]
    assert {problem.reason for problem in problems} == {"cannot be read (Too many levels of symbolic links)"}


READ_AS_NOBODY = """
import os, sys
from pathlib import Path
from training.data.sources import read_images
if os.geteuid() == 0:  # root may read everything
    os.setuid(65534)
print(read_images(Path(sys.argv[1])))
"""


def test_a_folder_that_may_not_be_read_is_set_aside(tmp_path: Path) -> None:
    for name in ("open", "closed", "last"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(b"x")
    for parent in [tmp_path, *tmp_path.parents]:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    (tmp_path / "closed").chmod(0o000)
    done = subprocess.run([sys.executable, "-c", READ_AS_NOBODY, tmp_path], capture_output=True, text=True, check=False)
    (tmp_path / "closed").chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("SourceImage(") == 2
    assert "the folder cannot be read (Permission denied)" in done.stdout and "item_id='closed'" in done.stdout
