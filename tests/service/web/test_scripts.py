"""The page's scripts pass oxlint, with the rules of `.oxlintrc.json`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OXLINT = shutil.which("oxlint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
needs_oxlint = pytest.mark.skipif(OXLINT is None, reason="oxlint is not installed (pip install oxlint)")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(OXLINT), "--config", str(ROOT / ".oxlintrc.json"), "--deny-warnings", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@needs_oxlint
def test_the_scripts_of_the_page_are_free_of_lint() -> None:
    done = lint(ROOT / "service/web")
    assert done.returncode == 0, done.stdout


@needs_oxlint
@pytest.mark.parametrize(
    ("script", "rule"),
    [("consol.log(1);", "no-undef"), ("const unused = 1;", "no-unused-vars"), ("let a = (; b", "Unexpected token")],
)
def test_a_slip_is_found(tmp_path: Path, script: str, rule: str) -> None:
    (tmp_path / "slip.js").write_text(script)
    done = lint(tmp_path)
    assert done.returncode != 0 and rule in done.stdout
