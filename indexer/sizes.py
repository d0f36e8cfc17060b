"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_size(text: str) -> int:
    """Bytes of a text such as `500MB`, `2GB` or `1.5GiB`; raises `ValueError` for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?i?B)?", text.strip(), re.IGNORECASE)
    unit = (found[2] or "").upper() if found else None
    if found is None or unit not in UNITS:
        raise ValueError(f"{text!r} is not a size; write a number and a unit, such as 500MB, 2GB or 1.5GiB")
    return round(float(found[1]) * UNITS[unit])
