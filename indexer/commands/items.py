"""`nitamono items`: `list` and `remove`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from indexer.options import DEFAULT_HOME, CollectionOption, HomeOption
from training.commands.group import command_group
from training.console import JsonOption, say

items = command_group("List and remove items.")


@items.command("list")
def items_list(
    gone: Annotated[bool, typer.Option("--gone", help="Only items none of whose photos exists any more.")] = False,
    collection: CollectionOption = "default",
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """List items with their photos and sources.

    Each line shows item_id, number of photos, number of those whose file is gone, and the sources that they belong to:
    paths, "http:" for the HTTP API, or "-" if an earlier version indexed them and no run since listed them.

    \b
    Examples:
      nitamono items list --collection shop
      nitamono items list --gone
    """
    from indexer.catalogue.home import Home
    from indexer.ingest.items import list_items

    with Home.open(home) as opened:
        found = list_items(opened, collection, gone=gone)
    lines = [f"{item.item_id}\t{item.photos}\t{item.gone}\t{', '.join(item.sources) or '-'}" for item in found]
    say({"items": [asdict(item) for item in found]}, json_output, "\n".join(lines) or "no items")


@items.command("remove")
def items_remove(
    item_ids: Annotated[list[str] | None, typer.Argument(metavar="ITEM_ID...", help="Ids of the items.")] = None,
    file: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="File with one item_id a line; - for standard input.")
    ] = None,
    collection: CollectionOption = "default",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the items without removing them.")] = False,
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Remove items from a collection.

    Running servers stop showing them at once. As after DELETE over HTTP, indexing leaves them out until it is given
    --restore-deleted. Nothing is removed if one of the items does not exist.

    \b
    Examples:
      nitamono items remove bag-17 bag-18 --collection shop
      nitamono items remove --from ids.txt --dry-run
    """
    from indexer.catalogue.home import Home
    from indexer.errors import InvalidRequestError
    from indexer.ingest.items import remove_items

    wanted = list(dict.fromkeys([*(item_ids or []), *(_lines(file) if file is not None else [])]))
    if not wanted:
        raise InvalidRequestError("item_id", "no item_id was given; give item ids, or a file of them with --from")
    with Home.open(home) as opened:
        remove_items(opened, collection, wanted, dry_run=dry_run)
    verb = "would be removed" if dry_run else "removed"
    text = "\n".join([*wanted, f"{len(wanted)} items {verb}"])
    say({"removed": wanted, "dry_run": dry_run}, json_output, text)


def _lines(file: Path) -> list[str]:
    from training.errors import NitamonoError

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise NitamonoError(f"{file}: cannot be read ({exc}); expected text with one item_id a line") from exc
    return [line for line in text.splitlines() if line]
