"""The root command group: it knows each command by name and summary, and imports a command only when it is used.

Importing all commands takes longer than anything else that `nitamono --help` does.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
import typer.main
from typer.core import TyperGroup

PANELS = ("Catalogue", "Search", "Encoders", "Evaluation", "Models", "Service")
OPTIONS: dict[str, Any] = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}


class Entry(NamedTuple):
    """A command of `nitamono`.

    `target` is `module:name`, a function or a `typer.Typer` group. The summary repeats the first line of its docstring,
    so that `--help` can print it without an import.
    """

    name: str
    target: str
    panel: str
    summary: str


def command_group(help_text: str | None = None, **options: Any) -> typer.Typer:
    """A group of subcommands, such as `nitamono encoders`; without `help_text`, its callback has the help."""
    if help_text is not None:
        options["help"] = help_text
    return typer.Typer(cls=Group, **{"no_args_is_help": True, **OPTIONS, **options})


def load_command(entry: Entry) -> Any:
    """Import a command and build its parser."""
    module, _, name = entry.target.partition(":")
    target = getattr(import_module(module), name)
    if isinstance(target, typer.Typer):
        group = typer.main.get_group(target)
        group.name = entry.name
        return group
    single = typer.Typer(**OPTIONS)
    single.command(entry.name)(target)
    return typer.main.get_command(single)


class Commands(MutableMapping[str, Any]):
    """Commands by name; a command is imported when it is looked up."""

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = load_command(self._entries[name])
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class Group(TyperGroup):
    """A group whose help shows every summary in full."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, _summary(command)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class RootGroup(TyperGroup):
    """The root of the command line: `entries` in panels."""

    entries: ClassVar[tuple[Entry, ...]]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = Commands(self.entries)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(len(entry.name) for entry in self.entries)
        for panel in PANELS:
            rows = [(entry.name.ljust(width), entry.summary) for entry in self.entries if entry.panel == panel]
            if rows:
                with formatter.section(panel):
                    formatter.write_dl(rows)


def _summary(command: Any) -> str:
    return str(command.help).partition("\n")[0]
