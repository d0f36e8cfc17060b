"""`nitamono backup`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indexer.errors import CorruptError
from indexer.options import DEFAULT_HOME, HomeOption
from training.console import JsonOption, note, say


def backup(
    out: Annotated[Path, typer.Option("--out", "-o", help="New directory for the backup.")],
    link: Annotated[
        bool,
        typer.Option(
            "--link/--copy", help="Link files that never change instead of copying them (same file system only)."
        ),
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Back up a home while servers and commands use it.

    The backup holds the catalogue as of one moment (with the hashes of API keys), encoders, generations, finished
    retrainings and uploaded photos. Photos of indexed sources are not in the home and must be backed up where they are.
    A catalogue in PostgreSQL must be dumped first, with pg_dump.

    \b
    Examples:
      nitamono backup --out /backups/2026-11-30
      nitamono backup --out /backups/hourly-07 --link
    """
    from indexer.backup.backup import back_up
    from indexer.backup.contents import listed
    from indexer.catalogue.home import Home

    with Home.open(home) as opened:
        report = back_up(opened, out, link=link)
    contents = report.contents
    if contents.database == "postgresql":
        note("the catalogue is in PostgreSQL and not in this backup; dump it with pg_dump before each backup")
    if contents.outside:
        note(f"{contents.outside} photos and masks are outside the home and not in this backup")
    document = {
        "path": str(report.path), "created_at": contents.created_at, "database": contents.database,
        "files": len(contents.files), "bytes": contents.size, "outside": contents.outside,
        "damaged": report.damaged, "missing": report.missing,
    }  # fmt: skip
    say(document, json_output, f"{report.path}: {len(contents.files)} files, {contents.size / 1e6:.1f} MB")
    if report.damaged or report.missing:
        raise CorruptError(
            f"the backup was written, but {home} itself has {len(report.damaged)} damaged and {len(report.missing)} "
            f"missing files: {listed(report.damaged + report.missing)}"
        )
