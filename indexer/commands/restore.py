"""`nitamono restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indexer.options import DEFAULT_HOME, HomeOption
from training.console import JsonOption, note, say


def restore(
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="Directory that `nitamono backup` wrote.")],
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Restore a home from a backup.

    Verifies every file, and creates the home only if all of them are whole. The home must not exist yet. A catalogue in
    PostgreSQL must be restored from its own dump, with pg_restore.

    \b
    Example:
      nitamono restore /backups/2026-11-30 --home new-home
    """
    from indexer.backup.restore import restore as restore_backup

    contents = restore_backup(backup, home)
    if contents.database == "postgresql":
        note("the catalogue was in PostgreSQL; restore its dump with pg_restore before you use this home")
    if contents.outside:
        note(f"{contents.outside} photos and masks were outside the home; they are used if they are still there")
    document = {
        "home": str(home), "created_at": contents.created_at, "database": contents.database,
        "files": len(contents.files), "bytes": contents.size, "outside": contents.outside,
    }  # fmt: skip
    say(document, json_output, f"{home}: restored as of {contents.created_at}, {len(contents.files)} files")
