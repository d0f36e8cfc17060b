"""The command line: help that fits and is complete, examples that parse, a quick start, and the committed reference."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from docs.scripts import cli as reference
from tests.commands import parse
from training.commands.group import PANELS

ROOT = Path(__file__).parents[2]
COMMANDS = list(reference.walk())
RUNNABLE = [found for found in COMMANDS if not getattr(found.command, "no_args_is_help", False)]
HEAVY = ("numpy", "torch", "faiss", "sqlalchemy", "lightning", "fastapi", "plotly", "alembic", "rich", "PIL")


def run(*words: str, code: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80", "TERMINAL_WIDTH": "80"}
    call = f"import sys; sys.argv = ['nitamono', *{words!r}]\nfrom service.cli import main\n"
    wrapped = f"{call}try:\n    main()\nfinally:\n    {code or 'pass'}"
    return subprocess.run([sys.executable, "-c", wrapped], cwd=ROOT, capture_output=True, text=True, env=environment)


def ids(commands: list[reference.Command]) -> list[str]:
    return [found.words for found in commands]


def test_help_shows_each_command_in_its_panel_with_its_whole_summary() -> None:
    done = run("--help")
    assert done.returncode == 0, done.stderr
    panels = dict(re.findall(r"^(\w+):\n((?:  .*\n?)+)", done.stdout, re.MULTILINE))
    assert tuple(name for name in panels if name != "Options") == PANELS
    for entry in COMMANDS[0].command.entries:
        assert re.search(rf"^  {entry.name} +{re.escape(entry.summary)}$", panels[entry.panel], re.MULTILINE)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_summaries_in_the_table_of_commands_are_those_of_the_commands() -> None:
    for entry in COMMANDS[0].command.entries:
        assert COMMANDS[0].command.commands[entry.name].help.partition("\n")[0] == entry.summary


@pytest.mark.parametrize("found", COMMANDS, ids=ids(COMMANDS))
def test_each_command_has_a_summary_that_fits(found: reference.Command) -> None:
    assert found.summary.endswith(".") and "\n" not in found.summary and len(found.summary) <= 60


@pytest.mark.parametrize("found", RUNNABLE, ids=ids(RUNNABLE))
def test_each_command_has_examples_that_parse(found: reference.Command) -> None:
    assert found.examples
    for line in found.examples:
        parse(shlex.split(line))
        assert line.startswith(found.words)


@pytest.mark.parametrize("found", RUNNABLE, ids=ids(RUNNABLE))
def test_each_argument_and_option_has_a_help_text(found: reference.Command) -> None:
    for parameter in found.parameters:
        assert parameter.help and parameter.help.endswith("."), parameter.name


def test_the_version_is_printed() -> None:
    assert run("--version").stdout == f"nitamono {version('nitamono')}\n"


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("search", "--help"), ("encoders", "--help")])
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    code = f"print(*sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)"
    assert run(*words, code=code).stderr.split() == []


def test_help_imports_no_command() -> None:
    code = "print(*[n for n in sys.modules if '.commands.' in n and n[-4:] != '.app'], file=sys.stderr)"
    assert run("--help", code=code).stderr.split() == ["training.commands.group"]


def test_a_mistyped_command_is_a_usage_error_with_a_suggestion() -> None:
    done = run("serch")
    assert done.returncode == 2 and "search" in done.stderr


def test_the_committed_reference_is_what_the_commands_say() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `python -m docs.scripts.cli`"


def test_building_every_command_imports_nothing_heavy() -> None:
    code = (
        "from docs.scripts.cli import walk; list(walk()); import sys; "
        f"print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
