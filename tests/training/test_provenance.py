"""The commit on a card, and what it says that an encoder was trained from."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.provenance import describe_labels, git_commit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"HEAD": COMMIT + "\n"}, COMMIT),
        ({"HEAD": "ref: refs/heads/main\n", "refs/heads/main": COMMIT + "\n"}, COMMIT),
        ({"HEAD": "ref: refs/heads/main\n", "packed-refs": f"# pack-refs\n{COMMIT} refs/heads/main\n"}, COMMIT),
        ({"HEAD": "ref: refs/heads/main\n", "packed-refs": f"{COMMIT} refs/heads/main2\n"}, None),
        ({"HEAD": "ref: refs/heads/main\n"}, None),
        ({}, None),
    ],
)
def test_the_commit_is_read_from_the_checkout(files: dict[str, str], expected: str | None, tmp_path: Path) -> None:
    for name, text in files.items():
        path = tmp_path / ".git" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / ".git").mkdir(exist_ok=True)
    package = tmp_path / "training"
    package.mkdir()
    assert git_commit(package) == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (None, "label-free: 7,868 photos of 4,968 items"),
        ("background", "label-free: 7,868 photos of 4,968 items"),
        ("category", "the catalogue's own category: 7,868 photos of 4,968 items"),
        ("colour", "the catalogue's own colour: 7,868 photos of 4,968 items"),
    ],
)
def test_a_card_says_whose_labels_were_learnt_from(condition: str | None, expected: str) -> None:
    assert describe_labels(condition, {"images": 7868, "items": 4968}) == expected
