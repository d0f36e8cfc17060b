"""ONNX Runtime does not begin its telemetry, which would name the machine to the library's authors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

VARIABLE = "ORT_DISABLE_TELEMETRY"
CODE = f"""
import os, sys
from training.data.item_finder import FINDER_FILE
from training.onnx.graph import open_session
assert "onnxruntime" not in sys.modules  # it reads the variable when it is imported
open_session(FINDER_FILE.read_bytes(), threads=1)
print(os.environ["{VARIABLE}"])
"""


@pytest.mark.parametrize(("chosen", "used"), [(None, "1"), ("0", "0")], ids=["by default", "if the operator wants it"])
def test_telemetry_begins_only_where_the_operator_chose_it(chosen: str | None, used: str, tmp_path: Path) -> None:
    """Telemetry that has begun stores an id of the machine; by default nothing is stored."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.fspath(tmp_path), "XDG_CACHE_HOME": os.fspath(tmp_path)}
    if chosen is not None:
        environment[VARIABLE] = chosen
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2], check=True
    )
    assert done.stdout.split() == [used]
    if chosen is None:
        assert list(tmp_path.rglob("*deviceid*")) == []
