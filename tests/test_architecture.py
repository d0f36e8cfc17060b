"""What holds the tree together: layers, light imports, and docs that name each command and setting."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.scripts import cli
from service.settings import Settings

ROOT = Path(__file__).parents[1]
REFERENCE = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
COMMAND_LINE = cli.PAGE.read_text(encoding="utf-8")


def test_service_imports_indexer_imports_training_and_never_back() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("service.cli", ("torch", "faiss", "numpy", "sqlalchemy", "lightning", "plotly", "fastapi", "alembic")),
        ("indexer.ingest.ingest", ("torch", "faiss", "lightning", "plotly", "fastapi", "pyarrow")),
        ("training.data.reader", ("torch", "sqlalchemy", "faiss", "pyarrow")),
        ("training.recipes", ("torch", "lightning")),
        ("service.app", ("lightning", "plotly")),
    ],
)
def test_starting_up_imports_nothing_heavy(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({heavy!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("found", [found for found in cli.walk() if found.parameters], ids=lambda found: found.words)
def test_every_command_and_option_is_in_the_command_line_reference(found: cli.Command) -> None:
    section = re.search(rf"^##+ `{re.escape(found.words)}`(.*?)(?=^##|\Z)", COMMAND_LINE, re.MULTILINE | re.DOTALL)
    assert section is not None
    options = [option for parameter in found.command.params for option in parameter.opts if option.startswith("--")]
    missing = [option for option in options if option not in section[1] and option not in cli.COMPLETION]
    assert missing == []


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_in_the_reference(name: str) -> None:
    assert f"`NITAMONO_{name.upper()}`" in REFERENCE


def test_no_module_is_called_utils_or_common() -> None:
    names = {path.stem for layer in ("training", "indexer", "service") for path in (ROOT / layer).rglob("*.py")}
    assert names.isdisjoint({"utils", "util", "common", "helpers", "misc"})
