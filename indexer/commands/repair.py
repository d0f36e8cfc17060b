"""`nitamono repair`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from indexer.errors import CorruptError
from indexer.options import DEFAULT_HOME, HomeOption
from training.console import JsonOption, say


def repair(
    home: HomeOption = DEFAULT_HOME,
    encoder: Annotated[
        Path | None,
        typer.Option(metavar="REF", help="Encoder directory to restore a damaged copy with the same id from."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Rebuild damaged generations and encoders.

    A damaged active generation is rebuilt from the vectors in the catalogue and activated; no photo is read. A damaged
    generation that is not active is removed. A damaged encoder is restored from the shipped encoder with the same id,
    or from --encoder; if only its ONNX file is damaged, it is exported again with PyTorch. Exits with 1 if something
    could not be repaired. A damaged catalogue can only be restored from a backup.

    \b
    Example:
      nitamono repair
    """
    from indexer.catalogue.home import Home
    from indexer.ingest.repair import repair as repair_home

    with Home.open(home) as opened:
        report = repair_home(opened, encoder)
    lines = [
        *(f"encoder {encoder_id[:12]}: restored" for encoder_id in report.encoders),
        *(f"{name!r} now serves generation {number}, rebuilt" for name, number in report.rebuilt.items()),
        *(f"generation {name}: damaged and not active; removed" for name in report.removed),
        *report.problems,
    ]
    say(asdict(report), json_output, "\n".join(lines) or "nothing is damaged")
    if report.problems:
        count = len(report.problems)
        raise CorruptError(f"{count} {'encoder' if count == 1 else 'encoders'} could not be repaired")
