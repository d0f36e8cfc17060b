"""A collection is retrained, switched and rolled back while a client asks; see `benchmarks/retrain_under_load.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from training.data.studio.catalogue import write_catalogue

ROOT = Path(__file__).parents[2]
SMALL = (
    "preprocessing.size=32",
    "model.widths=[16,32,64]",
    "model.decoder_widths=[64,32,16]",
    "epochs=14",
    "batch_size=64",
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_request_fails_and_none_mixes_two_encoders_while_a_collection_is_retrained(tmp_path: Path) -> None:
    source = write_catalogue(tmp_path / "shop", items=140, photos_per_item=2, seed=5, size=64)
    report = tmp_path / "load.json"
    sets = [part for value in SMALL for part in ("--set", value)]
    command = [sys.executable, str(ROOT / "benchmarks/retrain_under_load.py"), "--source", str(source), "--json"]
    done = subprocess.run([*command, str(report), "--quiet", "3", *sets], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    assert found["retrain"] == "promoted", found
    assert found["failed"] == 0, found["failures"]
    assert found["mixed"] == 0
    first, second = found["phases"]["quiet"]["encoders"], found["phases"]["switched"]["encoders"]
    assert len(first) == len(second) == 1 and first != second
    assert set(found["phases"]["switched again"]["encoders"]) == {*first, *second}
