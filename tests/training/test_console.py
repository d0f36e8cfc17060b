"""What commands say on stderr."""

from __future__ import annotations

import pytest

from training.console import note_unusable
from training.data.dataset import Skipped
from training.data.entries import SourceProblem


def test_the_first_20_unusable_files_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    faults = [
        SourceProblem("shop.csv: line 2", "has no image"),
        *(Skipped(f"{n}.jpg", "not an image") for n in range(30)),
    ]
    note_unusable(faults)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["shop.csv: line 2: has no image", *(f"{n}.jpg: not an image" for n in range(19))]
