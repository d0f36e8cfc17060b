"""`nitamono rejects`: `list`."""

from __future__ import annotations

from dataclasses import asdict

from indexer.options import DEFAULT_HOME, CollectionOption, HomeOption
from training.commands.group import command_group
from training.console import JsonOption, say

rejects = command_group("Show which images and rows were rejected.")


@rejects.command("list")
def rejects_list(
    collection: CollectionOption = "default", home: HomeOption = DEFAULT_HOME, json_output: JsonOption = False
) -> None:
    """List rejected images and rows with the reasons.

    \b
    Example:
      nitamono rejects list --collection shop
    """
    from indexer.catalogue.home import Home

    with Home.open(home) as opened:
        records = opened.catalogue.rejects.all(collection)
    lines = [f"{r.place}\t{r.item_id or '-'}\t{r.reason}" for r in records]
    say({"rejects": [asdict(r) for r in records]}, json_output, "\n".join(lines) or "no rejects")
