"""Cells of JSON and Parquet: text for every scalar, files from their bytes, one reason for each bad row."""

from __future__ import annotations

import datetime as dt
import io
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.conftest import draw_photo
from training.data.cells import cell_text
from training.data.extracted import PREFIX, remove_abandoned
from training.data.sources import SourceImage, SourceProblem, read_images
from training.errors import SourceError

SECONDS = dt.datetime(2024, 5, 6, 7, 8, 9)
TEXTS: list[tuple[Any, str | None]] = [
    (Decimal("12.50"), "12.50"), (Decimal("1E+3"), "1000"), (Decimal("NaN"), None), (float("nan"), None),
    (3.0, "3"), (0.1, "0.1"), (1e20, "100000000000000000000"), (float("inf"), "inf"), (True, "True"), (7, "7"),
    (dt.date(2024, 5, 6), "2024-05-06"), (SECONDS, "2024-05-06T07:08:09"), (dt.time(7, 8), "07:08:00"),
    (SECONDS.replace(tzinfo=dt.UTC), "2024-05-06T07:08:09+00:00"), (dt.timedelta(seconds=90.5), "PT90.5S"),
    (UUID(int=5), "00000000-0000-0000-0000-000000000005"), ("  ", None), (None, None), (" a b ", "a b"),
    (["x", "y"], '["x", "y"]'), ([1.0, Decimal("2.5")], '[1.0, "2.5"]'), ({"b": 1, "a": None}, '{"a": null, "b": 1}'),
    ([dt.date(2024, 5, 6), float("nan")], '["2024-05-06", null]'), ([("k", 1)], '[["k", 1]]'),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_a_cell_is_iso_or_decimal_text(value: Any, text: str | None) -> None:
    assert cell_text(value) == text


def photo(number: int) -> bytes:
    out = io.BytesIO()
    draw_photo(number).save(out, "JPEG")
    return out.getvalue()


def read_table(folder: Path, table: pa.Table) -> tuple[list[SourceImage], list[SourceProblem]]:
    pyarrow.parquet.write_table(table, folder / "c.parquet")
    return read_images(folder / "c.parquet")


def test_parquet_columns_of_every_type_become_text(tmp_path: Path) -> None:
    nanoseconds = pa.array([1_715_000_000_123_456_789, None], pa.timestamp("ns"))
    columns = {
        "item_id": pa.array([5, 6]),
        "image": ["a.jpg", "b.jpg"],
        "price": pa.array([Decimal("12.50"), None], pa.decimal128(9, 2)),
        "day": pa.array([dt.date(2024, 5, 6), None]),
        "at": nanoseconds,
        "zoned": nanoseconds.cast(pa.timestamp("ns", "UTC")),
        "took": pa.array([1_500_000_000, None], pa.duration("ns")),
        "time": pa.array([1_500_000_000, None], pa.time64("ns")),
        "tags": [["x", "y"], None],
        "kind": pa.array(["bag", None]).dictionary_encode(),
        "size": pa.array([{"w": 1, "h": 2.5}, None]),
    }
    (first, second), problems = read_table(tmp_path, pa.table(columns))
    assert problems == []
    assert (first.item_id, second.item_id, second.attributes) == ("5", "6", {})
    assert first.attributes == {
        "price": "12.50", "day": "2024-05-06", "at": "2024-05-06T12:53:20.123456",
        "zoned": "2024-05-06T12:53:20.123456+00:00", "took": "PT1.5S", "time": "00:00:01.500000",
        "tags": '["x", "y"]', "kind": "bag", "size": '{"h": 2.5, "w": 1}',
    }  # fmt: skip


def test_a_value_that_python_cannot_hold_rejects_its_row(tmp_path: Path) -> None:
    days = pa.array([19_000, 9_000_000, 19_001], pa.int32()).cast(pa.date32())
    table = pa.table({"item_id": ["a", "b", "c"], "image": ["a", "b", "c"], "day": days})
    images, problems = read_table(tmp_path, table)
    assert [image.item_id for image in images] == ["a", "c"]
    assert problems[0].where == "c.parquet row 2" and problems[0].reason.startswith("day cannot be read (")


def test_a_column_name_that_is_not_utf_8_is_no_traceback(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"item_id": ["a"], "image": ["b"], "colour": ["red"]}), tmp_path / "c.parquet")
    data = (tmp_path / "c.parquet").read_bytes()
    (tmp_path / "c.parquet").write_bytes(data.replace(b"colour", b"col\xcaur"))
    with pytest.raises(SourceError, match="not a Parquet file") as error:
        read_images(tmp_path / "c.parquet")
    assert "\n" not in str(error.value)


def test_columns_of_one_name_are_numbered_in_parquet_too(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["v"])] * 5, names=["item_id", "image", "tag", "tag", ""])
    (image,), _ = read_table(tmp_path, table)
    assert image.attributes == {"tag": "v", "tag (2)": "v"}


@pytest.mark.parametrize("layout", ["hugging face", "binary", "large_binary"])
def test_image_bytes_in_parquet_are_a_source(tmp_path: Path, layout: str) -> None:
    photos = [photo(n) for n in range(3)]
    cells: Any = [{"bytes": data, "path": f"{n}.jpg"} for n, data in enumerate(photos)]
    if layout != "hugging face":
        cells = pa.array(photos, pa.binary() if layout == "binary" else pa.large_binary())
    table = pa.table({"item_id": ["a", "b", "c"], "image": cells, "mask": pa.array([None, photos[0], None])})
    images, problems = read_table(tmp_path, table)
    assert problems == []
    assert [image.path.read_bytes() for image in images] == photos
    assert images[1].mask is not None and images[1].mask.read_bytes() == photos[0]
    assert images[0].mask is None


def test_hugging_faces_paths_without_bytes_are_relative_to_the_manifest(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": None, "path": "x/a.jpg"}, {"bytes": None, "path": None}, None], kind)
    images, problems = read_table(tmp_path, pa.table({"item_id": ["a", "b", "c"], "image": cells}))
    assert [image.path for image in images] == [tmp_path / "x/a.jpg"]
    assert [problem.reason.partition(";")[0] for problem in problems] == ["image is empty"] * 2


BAD_CELLS = [
    ({"item_id": float("nan")}, "item_id is empty"),
    ({"item_id": None}, "item_id is empty"),
    ({"item_id": ["a"]}, "item_id must be text or a number; found a list"),
    ({"item_id": True}, "item_id must be text or a number; found true or false"),
    ({"image": 7}, "image must be a path; found a number"),
    ({"image": ["a.jpg"]}, "image must be a path; found a list"),
    ({"image": {"url": "x"}}, "image is an object with 'url'; expected bytes and path"),
    ({"image": "https://example.com/a.jpg"}, "image is a URL; URLs are not fetched: download the file and give its"),
    ({"image": "file:///a.jpg"}, "image is a URL"),
    ({"image": "data:image/png;base64,AAAA"}, "image is a URL"),
    ({"mask": "s3://bucket/a.png"}, "mask is a URL"),
    ({"title": "x" * 140_000}, "title has 140000 characters; the limit is 131072"),
]


@pytest.mark.parametrize(("fields", "reason"), BAD_CELLS)
def test_a_bad_cell_gives_its_row_one_reason(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    good = [{"item_id": name, "image": f"{name}.jpg"} for name in "abc"]
    rows = [good[0], {**good[1], **fields}, good[2]]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    images, problems = read_images(tmp_path / "c.jsonl")
    assert [image.item_id for image in images] == ["a", "c"]
    assert len(problems) == 1 and problems[0].reason.startswith(reason)


def test_bytes_in_an_attribute_reject_the_row(tmp_path: Path) -> None:
    table = pa.table({"item_id": ["a", "b"], "image": ["a", "b"], "hash": pa.array([b"\xff", None])})
    images, problems = read_table(tmp_path, table)
    assert [image.item_id for image in images] == ["b"]
    assert problems[0].reason == "hash holds bytes; expected text, a number, a date or a list"


EXTRACT = """
import os, sys
from training.data.extracted import store_temporarily
print(store_temporarily(b"x").path, flush=True)
if len(sys.argv) > 1: os.kill(os.getpid(), 9)
"""


def test_extracted_images_go_with_their_process_even_if_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    call = [sys.executable, "-c", EXTRACT]
    path = Path(subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip())
    assert path.parent.parent == tmp_path and not list(tmp_path.iterdir())
    killed = subprocess.run([*call, "kill"], capture_output=True, text=True, check=False)
    assert killed.returncode == -9 and Path(killed.stdout.strip()).exists()
    living = subprocess.Popen([*call[:2], EXTRACT + "input()"], stdin=-1, stdout=-1, text=True)
    assert living.stdout is not None
    kept = Path(living.stdout.readline().strip())
    remove_abandoned(tmp_path)
    assert [folder for folder in tmp_path.glob(PREFIX + "*")] == [kept.parent]
    living.communicate("\n")
    assert not list(tmp_path.iterdir())
