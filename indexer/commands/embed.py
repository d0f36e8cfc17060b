"""`nitamono embed`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from indexer.errors import InvalidRequestError
from indexer.options import DeviceOption, ProcessesOption
from training.console import JsonOption, note_unusable, progress_bar, say


def embed(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder or manifest.")],
    encoder: Annotated[str, typer.Option(metavar="REF", help="Encoder directory or name.")],
    out: Annotated[Path, typer.Option(help=".npz file to write.")],
    processes: ProcessesOption = None,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Write the vectors of a source's images to a file.

    The .npz file holds the arrays ids (N,), vectors (N, dim) float32 and encoder_id.

    \b
    Example:
      nitamono embed photos --encoder default --out vectors.npz
    """
    from indexer.ingest.embed import embed_source
    from training.data.sources import read_source
    from training.files import check_output_file
    from training.reference import describe_any

    if out.suffix != ".npz":
        raise InvalidRequestError("out", f"{out}: name a file that ends in .npz")
    check_output_file(out)
    described = describe_any(encoder)
    entries = list(read_source(source))
    with progress_bar("embedding", "img") as progress:
        progress.started(len(entries))
        report = embed_source(entries, described, out, advance=progress.advance, processes=processes, device=device)
    note_unusable(report.rejected)
    document = {
        "out": str(out),
        "images": report.images,
        "dim": described.dim,
        "encoder_id": described.encoder_id,
        "rejected": [asdict(problem) for problem in report.rejected],
    }
    text = f"{out}: {report.images} vectors of {described.dim} dimensions, {len(report.rejected)} rejected"
    say(document, json_output, text)
