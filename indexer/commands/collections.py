"""`nitamono collections`."""

from __future__ import annotations

from dataclasses import asdict

from indexer.options import DEFAULT_HOME, HomeOption
from training.console import JsonOption, say


def collections(home: HomeOption = DEFAULT_HOME, json_output: JsonOption = False) -> None:
    """List collections and what they contain.

    Each line shows the name, the numbers of items, images, and rejected images and rows, and the active generation.

    \b
    Example:
      nitamono collections
    """
    from indexer.catalogue.home import Home

    with Home.open(home) as opened:
        records = opened.catalogue.collections.all()
    lines = [
        f"{r.name}\t{r.items} items\t{r.images} images\t{r.rejected} rejected\tgeneration {r.generation or 'none'}"
        for r in records
    ]
    say({"collections": [asdict(r) for r in records]}, json_output, "\n".join(lines) or "no collections")
