"""Writes `docs/cli.md`, the reference of the command line, from the help texts: `python -m docs.scripts.cli`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer
import typer.main

from service.cli import app
from training.commands.group import PANELS

PAGE = Path(__file__).parents[1] / "cli.md"
HEAD = """# Command line

Generated from the help texts by `python -m docs.scripts.cli`; edit those, not this page.
[reference.md](reference.md#commands) explains SOURCE, REF, exit codes and what goes beyond the help.
"""
COMPLETION = ("--install-completion", "--show-completion")  # typer's own


class Parameter(NamedTuple):
    """An argument or option, as `--help` shows it; `details` holds its default, range or environment variable."""

    name: str
    help: str
    details: str


class Command(NamedTuple):
    """A command or group with all its words, such as `nitamono encoders show`."""

    words: str
    command: Any

    @property
    def context(self) -> Any:
        return typer.Context(self.command, info_name=self.words)

    @property
    def usage(self) -> str:
        return " ".join([self.words, *self.command.collect_usage_pieces(self.context)])

    @property
    def summary(self) -> str:
        return self._paragraphs[0]

    @property
    def description(self) -> list[str]:
        return [" ".join(part.split()) for part in self._paragraphs[1:] if not part.startswith("\b")]

    @property
    def examples(self) -> list[str]:
        lines = [line.strip() for part in self._paragraphs if part.startswith("\b") for line in part.splitlines()]
        return [line for line in lines if line.startswith("nitamono ")]

    @property
    def parameters(self) -> list[Parameter]:
        """Its own arguments and options, without `--help` and shell completion."""
        shown = [one for one in self.command.params if not set(one.opts) & {*COMPLETION, "--help"}]
        return [self._parameter(one) for one in shown]

    @property
    def _paragraphs(self) -> list[str]:
        return [part.strip(" \n") for part in inspect.cleandoc(self.command.help).split("\n\n")]

    def _parameter(self, one: Any) -> Parameter:
        name, text = one.get_help_record(self.context)
        text_of_help = one.help or ""
        return Parameter(" ".join(name.split()), text_of_help, text.removeprefix(text_of_help).strip(" []"))


def walk(words: str = "nitamono", command: Any = None) -> Iterator[Command]:
    """All commands and groups, a group before its commands."""
    command = typer.main.get_command(app) if command is None else command
    yield Command(words, command)
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(f"{words} {name}", inner)


def section(found: Command, level: str = "###") -> str:
    """The section of one command."""
    parts = [f"{level} `{found.words}`", found.summary, f"```text\n{found.usage}\n```", *found.description]
    if found.examples:
        parts.append("\n".join(["```bash", *found.examples, "```"]))
    if found.parameters:
        parts.append("\n".join(["| parameter | meaning | details |", "|---|---|---|", *map(_row, found.parameters)]))
    return "\n\n".join(parts)


def _row(parameter: Parameter) -> str:
    cells = (f"`{parameter.name}`", parameter.help, parameter.details)
    return " ".join(["|", *(f"{cell} |".lstrip() for cell in (_escape(cell) for cell in cells))])


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|")


def page() -> str:
    """The whole reference, in the panels of `nitamono --help`."""
    root, *commands = walk()
    panels = {entry.name: entry.panel for entry in root.command.entries}
    parts = [HEAD.strip(), section(root, level="##")]
    for panel in PANELS:
        parts.append(f"## {panel}")
        parts += [section(found) for found in commands if panels[found.words.split()[1]] == panel]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
