"""`nitamono`: the root command, with the commands of every layer.

Nothing heavy is imported here: `nitamono index` on an unchanged catalogue finishes before torch would be imported.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Annotated

import typer

from indexer.commands.app import COMMANDS as INDEXER_COMMANDS
from service.commands.app import COMMANDS as SERVICE_COMMANDS
from training.commands.app import COMMANDS as TRAINING_COMMANDS
from training.commands.group import RootGroup
from training.console import fail
from training.errors import NitamonoError
from training.extras import extras


class NitamonoGroup(RootGroup):
    """All commands, in the order in which `--help` lists them within a panel."""

    entries = (*TRAINING_COMMANDS, *INDEXER_COMMANDS, *SERVICE_COMMANDS)


app = typer.Typer(
    cls=NitamonoGroup,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"nitamono {version('nitamono')}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Visual-similarity search for product catalogues.

    \b
    Examples:
      nitamono sample-catalogue --out shop
      nitamono index shop/catalogue.csv
      nitamono search photo.jpg
      nitamono serve

    SOURCE is a folder of photos or a .csv, .jsonl or .parquet manifest; REF is an encoder directory or name. `nitamono
    COMMAND --help` describes a command and its options.
    """


def _exit_at_once(number: int, frame: object) -> None:
    """Exit on Ctrl+C and SIGTERM: a kill at any moment loses nothing, and an orderly exit could wait for dead children.

    Without a handler, SIGTERM would not end process 1 of a container, and Lightning would end a training with status 0.
    """
    with suppress(OSError):  # nobody reads stderr any more
        os.write(2, b"\nnitamono: interrupted; stored data is safe; run the same command to continue\n")
    if processes := sys.modules.get("training.data.processes"):
        processes.hold_starts()
    os._exit(128 + number)


def main() -> None:
    """Run a command: exit with 0 on success, 1 with one line on stderr for a Nitamono error, 2 for wrong usage.

    Ctrl+C ends it with 130, and SIGTERM with 143.
    """
    signal.signal(signal.SIGINT, _exit_at_once)
    signal.signal(signal.SIGTERM, _exit_at_once)
    try:
        with extras("this command"):
            app(prog_name="nitamono", standalone_mode=True)
    except NitamonoError as exc:
        fail(str(exc))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as exc:  # such as a full disk, or a folder without write permission
        fail(f"{exc.filename or 'input or output'}: {exc.strerror or exc}")


if __name__ == "__main__":
    main()
