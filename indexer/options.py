"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

SIZE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
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


def parse_size(text: str) -> int:
    """Bytes of a text such as `500MB`, `2GB` or `1.5GiB`; raises `ValueError` for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?i?B)?", text.strip(), re.IGNORECASE)
    unit = (found[2] or "").upper() if found else None
    if found is None or unit not in SIZE_UNITS:
        raise ValueError(f"{text!r} is not a size; write a number and a unit, such as 500MB, 2GB or 1.5GiB")
    return round(float(found[1]) * SIZE_UNITS[unit])
