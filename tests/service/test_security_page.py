"""docs/security.md names a test for each attack, and each of these tests exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "security.md"


def test_every_attack_names_an_existing_test() -> None:
    table = PAGE.read_text().partition("## Attacks")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    named = [re.search(r"`(test_\w+\.py)::(test_\w+)` \|$", row) for row in rows]
    assert len(rows) >= 50
    for row, found in zip(rows, named, strict=True):
        assert found, row
        assert any(f"\ndef {found[2]}(" in path.read_text() for path in TESTS.rglob(found[1])), row
