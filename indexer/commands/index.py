"""`nitamono index`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from indexer.options import DEFAULT_HOME, CollectionOption, DeviceOption, HomeOption, ProcessesOption
from training.console import JsonOption, note, progress_bar, say


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
    processes: ProcessesOption = None,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Index a source and activate the new generation.

    Unchanged files are skipped and changed files are embedded again. Unreadable images and rows are rejected (see
    `nitamono rejects list`) without stopping the run. Items that are missing from the source are kept, and items that
    were deleted over HTTP stay deleted unless --restore-deleted is given. After an interruption, run the same command
    again. A damaged or missing generation is built again from stored vectors. A new --encoder embeds the whole
    collection again.

    \b
    Examples:
      nitamono index photos
      nitamono index shop/catalogue.csv --collection shop --encoder default
    """
    from indexer.catalogue.home import Home
    from indexer.ingest.ingest import index_source

    with progress_bar("indexing", "img") as progress, Home.open(home, create=True) as opened:
        report = index_source(
            opened, collection, source, encoder_ref=encoder, restore_deleted=restore_deleted,
            advance=progress.advance, started=progress.started, processes=processes, device=device,
        )  # fmt: skip
    counts = f"added {report.added}, updated {report.updated}, unchanged {report.unchanged}, rejected {report.rejected}"
    say(asdict(report), json_output, f"{counts}; {collection!r} now serves generation {report.generation}")
    if not report.onnx_compared:
        note("the encoder's ONNX file was not compared with its weights, because PyTorch is not installed")
    if report.deleted:
        note(f"{report.deleted} deleted items left out; --restore-deleted brings them back")
    if report.rejected:
        note(f"{report.rejected} rejected; `nitamono rejects list` shows the reasons")
