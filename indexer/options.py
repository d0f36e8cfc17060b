"""The options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_HOME = Path("nitamono-home")
HomeOption = Annotated[Path, typer.Option("--home", envvar="NITAMONO_HOME", help="Home directory.")]
CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="Collection name.")]
DeviceOption = Annotated[str, typer.Option(help="Where to encode: cpu, cuda or cuda:N.")]
ProcessesOption = Annotated[int | None, typer.Option(min=0, help="Reading processes; one per core by default.")]
