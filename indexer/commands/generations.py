"""`nitamono generations`: `list`, `verify`, `activate` and `rollback`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.errors import CorruptError
from indexer.options import DEFAULT_HOME, CollectionOption, HomeOption
from training.commands.group import command_group
from training.console import JsonOption, note, say

if TYPE_CHECKING:
    from indexer.catalogue.home import Home
    from indexer.catalogue.records import GenerationRecord

generations = command_group("List, verify, activate or roll back generations.")


@generations.command("list")
def generations_list(
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Collection name; omit to list all collections.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """List generations; one per collection is active.

    \b
    Example:
      nitamono generations list --collection shop
    """
    from indexer.catalogue.home import Home

    with Home.open(home) as opened:
        records = opened.catalogue.generations.all(collection)
    lines = [
        f"{r.collection}\t{r.number}\t{r.status}\t{r.count} vectors\t{r.factory}\tencoder {r.encoder_id[:12]}\t"
        f"recall@10 {r.recall_at_10:.3f}"
        for r in records
    ]
    say({"generations": [asdict(r) for r in records]}, json_output, "\n".join(lines) or "no generations")


@generations.command("verify")
def generations_verify(
    number: Annotated[
        int | None, typer.Argument(metavar="NUMBER", help="Generation number; omit to verify all kept ones.")
    ] = None,
    collection: CollectionOption = "default",
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Check generations for damage.

    Compares files, checksums, encoder and catalogue with each other, and exits with 1 when something is wrong.

    \b
    Example:
      nitamono generations verify
    """
    from indexer.catalogue.home import Home
    from indexer.generations.store import verify

    with Home.open(home) as opened:
        kept = [r.number for r in opened.catalogue.generations.all(collection) if r.status != "removed"]
        found = {n: verify(opened, collection, n) for n in (kept if number is None else [number])}
    lines = [f"generation {n}: {'; '.join(problems) or 'ok'}" for n, problems in found.items()]
    say({"verified": {str(n): problems for n, problems in found.items()}}, json_output, "\n".join(lines) or "none")
    broken = [str(n) for n, problems in found.items() if problems]
    if broken:
        raise CorruptError(f"generation {', '.join(broken)} of {collection!r} is damaged; run `nitamono repair`")


@generations.command("build")
def generations_build(
    collection: CollectionOption = "default", home: HomeOption = DEFAULT_HOME, json_output: JsonOption = False
) -> None:
    """Build a generation that includes all live changes.

    Items that were written or deleted over HTTP are searchable at once, and become part of the index with its next
    generation. A server builds one by itself when there are many (NITAMONO_FOLD_ITEMS), and `nitamono index` does so
    too. Does nothing if the active generation includes every change.

    \b
    Example:
      nitamono generations build --collection shop
    """
    from indexer.catalogue.home import Home
    from indexer.ingest.folding import fold

    with Home.open(home) as opened:
        number = fold(opened, collection)
    say({"generation": number}, json_output, f"{collection!r} now serves generation {number}")


@generations.command("activate")
def generations_activate(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="Generation number.")],
    collection: CollectionOption = "default",
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Verify and activate a kept generation.

    Running servers use it from their next search. Items that were uploaded in the meantime stay searchable; items that
    were indexed after the generation was built are missing until the source is indexed again.

    \b
    Example:
      nitamono generations activate 3
    """
    from indexer.catalogue.home import Home
    from indexer.ingest.promotion import activate

    with Home.open(home) as opened:
        record = activate(opened, collection, number)
        _note_missing_items(opened, record)
    say({"activated": asdict(record)}, json_output, f"{collection!r} now serves generation {number}")


@generations.command("rollback")
def generations_rollback(
    collection: CollectionOption = "default", home: HomeOption = DEFAULT_HOME, json_output: JsonOption = False
) -> None:
    """Activate the previous generation again.

    \b
    Example:
      nitamono generations rollback --collection shop
    """
    from indexer.catalogue.home import Home
    from indexer.ingest.promotion import rollback

    with Home.open(home) as opened:
        record = rollback(opened, collection)
        _note_missing_items(opened, record)
    say({"activated": asdict(record)}, json_output, f"{collection!r} now serves generation {record.number}")


def _note_missing_items(home: Home, record: GenerationRecord) -> None:
    """Warn about items that were indexed after the generation was built."""
    collection_id = home.catalogue.collection_id(record.collection)
    if missing := home.catalogue.changes.items_indexed_since(collection_id, record.watermark):
        note(
            f"{missing} items are not in generation {record.number}, because they were indexed after it was built; "
            "run `nitamono index SOURCE` to add them"
        )
