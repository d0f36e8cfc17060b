"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_HOME = Path("nitamono-home")
PRUNE_LIMIT = 0.2  # share of a source's images that `index --prune` removes without being told otherwise
HomeOption = Annotated[
    Path, typer.Option("--home", envvar="NITAMONO_HOME", help="Home directory of the catalogue and the indexes.")
]
CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="Collection name.")]
DeviceOption = Annotated[str, typer.Option(help="Device to encode on: cpu, cuda or cuda:N.")]
ProcessesOption = Annotated[
    int | None, typer.Option(min=0, help="Number of processes that read images; omit for one per core.")
]
