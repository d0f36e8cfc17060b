"""ONNX Runtime does not begin its telemetry, which would name the machine to the library's authors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
from training.data.item_finder import FINDER_FILE
from training.onnx.graph import open_session
open_session(FINDER_FILE.read_bytes(), threads=1)
"""


@pytest.mark.parametrize("chosen", [None, "0"], ids=["by default", "if the operator wants it"])
def test_telemetry_begins_only_where_the_operator_chose_it(chosen: str | None) -> None:
    """Telemetry that has begun warns that it cannot store the machine's id."""
    environment = {**os.environ, "HOME": os.devnull}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    if chosen is not None:
        environment["ORT_DISABLE_TELEMETRY"] = chosen
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert ("telemetry" in done.stderr) == (chosen == "0")
