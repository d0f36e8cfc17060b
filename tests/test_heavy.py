"""The list of heavy tests names files that there are."""

from __future__ import annotations

import pytest

from tests.conftest import HEAVY, ROOT, heaviness


@pytest.mark.parametrize("name", HEAVY)
def test_every_entry_of_the_heavy_tests_is_a_file_or_folder(name: str) -> None:
    assert (ROOT / name).exists()


def test_files_are_heavy_by_their_place_in_the_list() -> None:
    assert heaviness(ROOT / HEAVY[1]) == 1
    assert heaviness(ROOT / "indexer/retrain/test_gate.py") == HEAVY.index("indexer/retrain")
    assert heaviness(ROOT / "test_heavy.py") == len(HEAVY)
