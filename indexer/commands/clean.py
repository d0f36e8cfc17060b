"""`nitamono clean`."""

from __future__ import annotations

from typing import Annotated

import typer

from indexer.options import DEFAULT_HOME, HomeOption
from training.console import JsonOption, say


def clean(
    home: HomeOption = DEFAULT_HOME,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files without removing them.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Remove files that nothing refers to.

    These are photos of deleted items and temporary files of killed processes, both older than an hour, and generations
    that are no longer kept, with their tables if vectors are in PostgreSQL. Servers may run meanwhile; while a
    collection is indexed, run it later.

    \b
    Example:
      nitamono clean --dry-run
    """
    from indexer.catalogue.home import Home
    from indexer.ingest.clean import clean as clean_home

    with Home.open(home) as opened:
        report = clean_home(opened, dry_run=dry_run)
    found = [{"kind": left.kind, "path": str(left.path), "bytes": left.bytes} for left in report.removed]
    lines = [f"{left.kind}\t{left.bytes:,} bytes\t{left.path}" for left in report.removed]
    verb = "would be removed" if dry_run else "removed"
    lines.append(f"{len(found)} leftovers {verb}, {report.bytes:,} bytes")
    say({"removed": found, "bytes": report.bytes, "dry_run": dry_run}, json_output, "\n".join(lines))
