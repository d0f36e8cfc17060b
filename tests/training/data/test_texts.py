"""The boundary of texts: what a catalogue can hold, and that it is the same for every way in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.entries import SourceProblem
from training.data.sources import read_images
from training.data.texts import id_fault, shown, text_fault, visible

ALLOWED = ["می‌خواهم", "\U0001f468‍\U0001f469‍\U0001f467", "10 000 €", "a\u2028b", "‮x", "￾", " a "]
FAULTY = {
    "half of an emoji": ("cut emoji \ud83d", "U+D83D at character 11, which is not valid UTF-8 text"),
    "NUL": ("a\0b", "control character U+0000 (NUL) at character 2"),
    "escape": ("\x1b[31mred", "control character U+001B (escape) at character 1"),
    "C1": ("it\x92s", "control character U+0092 at character 3"),
}


@pytest.mark.parametrize("text", ALLOWED)
def test_joiners_no_break_spaces_and_other_odd_characters_are_allowed(text: str) -> None:
    assert (text_fault(text), id_fault(text)) == (None, None)


@given(st.text(st.characters(exclude_categories=())))
def test_a_good_text_is_utf_8_without_control_characters_and_every_text_can_be_shown(text: str) -> None:
    is_good = text.isascii() or all(not 0xD800 <= ord(c) <= 0xDFFF for c in text)
    is_good = is_good and not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)
    assert (text_fault(text) is None) == is_good
    assert text_fault(visible(text)) is None
    visible(text).encode()
    assert (visible(text) == text) == is_good


def test_titles_and_values_may_have_several_lines_and_ids_may_not() -> None:
    assert text_fault("one\r\n\ttwo", lines=True) is None
    assert "U+000D (carriage return) at character 4" in (text_fault("one\r\n\ttwo") or "")


def test_what_a_problem_quotes_can_be_printed_and_stored() -> None:
    problem = SourceProblem("a\nrow", "bad \x1b", "\ud83d", "x" * 10_000)
    assert (problem.where, problem.reason, problem.item_id) == ("a\\nrow", "bad \\x1b", "\\ud83d")
    assert len(problem.image or "") < 700
    assert shown("é") == "é"


def as_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    lines = ["item_id,image,title,colour"]
    for row in rows:
        lines.append(",".join(f'"{row.get(name, "")}"' for name in lines[0].split(",")))
    path.with_suffix(".csv").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    return path.with_suffix(".csv")


def as_jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    path.with_suffix(".jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return path.with_suffix(".jsonl")


def as_parquet(path: Path, rows: list[dict[str, str]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet

    columns = ["item_id", "image", "title", "colour"]
    cells = [[row.get(name, "").encode("utf-8", "surrogatepass") for row in rows] for name in columns]
    table = pa.table(
        {name: _as_strings(pa.array(column, pa.binary())) for name, column in zip(columns, cells, strict=True)}
    )
    pyarrow.parquet.write_table(table, path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def _as_strings(cells):
    """Bytes as a column of text, without the check that they are UTF-8."""
    import pyarrow as pa

    return pa.Array.from_buffers(pa.string(), len(cells), cells.buffers())


Write = Callable[[Path, list[dict[str, str]]], Path]


@pytest.mark.parametrize("write", [as_csv, as_jsonl, as_parquet])
@pytest.mark.parametrize("column", ["item_id", "image", "title", "colour"])
@pytest.mark.parametrize("case", FAULTY)
def test_a_row_with_a_faulty_text_is_rejected_and_the_others_are_read(
    tmp_path: Path, write: Write, column: str, case: str
) -> None:
    text, reason = FAULTY[case]
    good = [{"item_id": f"i{n}", "image": f"{n}.jpg", "title": "ok", "colour": "red"} for n in range(3)]
    source = write(tmp_path / "m", [good[0], {**good[1], column: text}, good[2]])
    images, problems = read_images(source)
    assert [image.item_id for image in images] == ["i0", "i2"]
    assert len(problems) == 1
    if case != "half of an emoji":
        assert reason in problems[0].reason and column in problems[0].reason
    else:
        assert "UTF-8" in problems[0].reason or "utf-8" in problems[0].reason
        assert column in problems[0].reason
    assert all(value is None or value.encode() for value in (problems[0].item_id, problems[0].image))


def test_an_attribute_name_with_a_control_character_rejects_its_row(tmp_path: Path) -> None:
    rows = [{"item_id": "a", "image": "a.jpg"}, {"item_id": "b", "image": "b.jpg", "col\x07our": "red"}]
    images, problems = read_images(as_jsonl(tmp_path / "m", rows))
    assert [image.item_id for image in images] == ["a"]
    assert problems[0].reason == (
        r"the attribute name 'col\x07our' contains the control character U+0007 at character 4; remove it"
    )


def test_files_with_names_that_cannot_be_ids_are_rejected_and_the_others_are_read(tmp_path: Path) -> None:
    names = [b"ok.jpg", b"new\nline.jpg", b"\xff.jpg", "می‌خواهم.jpg".encode(), b"10 000.jpg"]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(b"x")
    deep = tmp_path / ("d" * 250) / ("e" * 250) / ("f" * 200)
    deep.mkdir(parents=True)
    (deep / "long.jpg").write_bytes(b"x")
    (tmp_path / os.fsdecode(b"bad\xfe")).mkdir()
    (tmp_path / os.fsdecode(b"bad\xfe") / "x.jpg").write_bytes(b"x")
    images, problems = read_images(tmp_path)
    assert {image.item_id for image in images} == {"ok.jpg", "می‌خواهم.jpg", "10 000.jpg"}
    reasons = sorted(problem.reason for problem in problems)
    assert len(reasons) == 4
    assert reasons[:2] == ["the file name is not valid UTF-8; rename it"] * 2
    assert "U+000A (line feed) at character 4" in reasons[2] and "has 711 characters; the limit is 512" in reasons[3]
    assert all(problem.where.encode() for problem in problems)


def test_a_source_below_a_folder_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    from training.errors import SourceError

    folder = tmp_path / os.fsdecode(b"bad\xfe")
    folder.mkdir()
    with pytest.raises(SourceError, match="not valid UTF-8") as error:
        read_images(folder)
    assert str(error.value).encode()


@pytest.mark.parametrize("write", [as_csv, as_jsonl, as_parquet])
def test_ids_have_one_rule_in_every_manifest(tmp_path: Path, write: Write) -> None:
    ids = [text.strip() for text in ALLOWED] + ["x" * 512]
    too_long = "x" * 513
    rows = [{"item_id": item_id, "image": f"{n}.jpg"} for n, item_id in enumerate([*ids, too_long])]
    images, problems = read_images(write(tmp_path / "m", rows))
    assert [image.item_id for image in images] == ids
    assert [problem.reason for problem in problems] == ["item_id has 513 characters; the limit is 512"]
