"""`nitamono index`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from indexer.options import (
    DEFAULT_HOME,
    PRUNE_LIMIT,
    CollectionOption,
    DeviceOption,
    HomeOption,
    ProcessesOption,
    parse_size,
)
from training.console import JsonOption, note, progress_bar, say

IndexKind = Literal["auto", "flat", "hnsw", "ivf", "ivf-pq"]  # as `indexer.vectors.Kind`, which imports NumPy
INDEX = "Index"  # panel of its options


def index(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder, or .csv, .jsonl or .parquet manifest.")],
    home: HomeOption = DEFAULT_HOME,
    collection: CollectionOption = "default",
    encoder: Annotated[
        str | None,
        typer.Option(metavar="REF", help="Encoder directory or name; omit to keep the collection's encoder."),
    ] = None,
    restore_deleted: Annotated[
        bool, typer.Option("--restore-deleted", help="Also index items that were deleted over HTTP.")
    ] = False,
    restore_replaced: Annotated[
        bool, typer.Option("--restore-replaced", help="Also index items that were written over HTTP.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove photos and items that this source no longer lists.")
    ] = False,
    prune_limit: Annotated[
        float,
        typer.Option(min=0, max=1, help="Largest share of the source's photos that --prune removes."),
    ] = PRUNE_LIMIT,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what --prune would remove, and change nothing.")
    ] = False,
    index_kind: Annotated[
        IndexKind | None,
        typer.Option(
            "--index-kind", help="Kind of index; auto chooses by size and memory. Remembered.", rich_help_panel=INDEX
        ),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            min=0.5, max=1, help="recall@10 that an approximate index is tuned to. Remembered.", rich_help_panel=INDEX
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Memory that the index may take, such as 2GB. Remembered.", rich_help_panel=INDEX
        ),
    ] = None,
    processes: ProcessesOption = None,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Index a source and activate the new generation.

    Unchanged files are skipped and changed files are embedded again. Unreadable images and rows are rejected (see
    `nitamono rejects list`) without stopping the run. A photo that moved is recognised by its content and keeps its
    vector. Items that are missing from the source are kept unless --prune is given. Items that were deleted or written
    over HTTP stay as they are unless --restore-deleted or --restore-replaced is given. After an interruption, run the
    same command again. A damaged or missing generation is built again from stored vectors. A new --encoder embeds the
    whole collection again.

    Small collections are searched exactly. Large ones get an approximate index, which --index-kind, --recall and
    --memory choose; `nitamono generations list` shows its kind and its measured recall@10.

    \b
    Examples:
      nitamono index photos
      nitamono index shop/catalogue.csv --collection shop --encoder default
      nitamono index shop/catalogue.csv --collection shop --prune --dry-run
      nitamono index shop/catalogue.csv --collection shop --recall .98 --memory 2GB
    """
    from indexer.catalogue.home import Home
    from indexer.errors import InvalidRequestError
    from indexer.ingest.ingest import index_source

    if dry_run:
        if not prune:
            raise InvalidRequestError("dry_run", "--dry-run lists what --prune would remove; give --prune too")
        return _say_unlisted(home, collection, source, prune_limit, json_output)
    given = _size(memory)
    with progress_bar("indexing", "img") as progress, Home.open(home, create=True) as opened:
        report = index_source(
            opened, collection, source, encoder_ref=encoder, restore_deleted=restore_deleted,
            restore_replaced=restore_replaced, prune=prune, prune_limit=prune_limit,
            advance=progress.advance, started=progress.started, processes=processes, device=device,
            choose_index=lambda options: options.changed(index_kind, recall, given),
        )  # fmt: skip
    counts = f"added {report.added}, updated {report.updated}, unchanged {report.unchanged}, rejected {report.rejected}"
    say(asdict(report), json_output, f"{counts}; {collection!r} now serves generation {report.generation}")
    if not report.onnx_compared:
        note("the encoder's ONNX file was not compared with its weights, because PyTorch is not installed")
    if report.deleted:
        note(f"{report.deleted} deleted items left out; --restore-deleted brings them back")
    if report.replaced:
        note(f"{report.replaced} items written over HTTP left out; --restore-replaced takes them from the source")
    if report.moved:
        note(f"{report.moved} photos have moved; their vectors were kept")
    if prune:
        note(f"{report.pruned} photos removed that {source} no longer lists")
    if report.gone:
        note(
            f"{report.gone} stored files are gone, such as {', '.join(report.gone_examples)}; `nitamono items list "
            "--gone` lists items without a photo. Index a moved source at its new place, or remove what a source no "
            "longer lists with --prune"
        )
    if report.rejected:
        note(f"{report.rejected} rejected; `nitamono rejects list` shows the reasons")


def _size(memory: str | None) -> int | None:
    from indexer.errors import InvalidRequestError

    try:
        return None if memory is None else parse_size(memory)
    except ValueError as exc:
        raise InvalidRequestError("memory", f"--memory: {exc}") from exc


def _say_unlisted(home: Path, collection: str, source: Path, prune_limit: float, json_output: bool) -> None:
    from indexer.catalogue.home import Home
    from indexer.ingest.ingest import unlisted_images

    with Home.open(home) as opened:
        unlisted = unlisted_images(opened, collection, source, prune_limit=prune_limit)
    found = [{"item_id": image.item_id, "image": image.uri} for image in unlisted]
    lines = [f"{image.item_id}\t{image.uri}" for image in unlisted]
    lines.append(f"{len(found)} photos would be removed")
    say({"unlisted": found, "dry_run": True}, json_output, "\n".join(lines))
