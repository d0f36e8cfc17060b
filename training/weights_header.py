"""The header of a safetensors file, checked without torch and before any tensor is allocated."""

from __future__ import annotations

import json
from math import prod
from typing import Any

MAX_HEADER = 100_000_000  # as in the format's reference implementation
PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # how they begin; PK in a zip file
SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4,
    "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip


def check_safetensors(data: bytes) -> None:
    """Check that the header describes exactly the bytes that follow it.

    Raises:
        ValueError: the data is of another format, such as a pickle, or the header does not match it.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(len(data) - 8, MAX_HEADER):
        if data[:2] in PICKLES:  # only now: they are the lengths of headers too, such as 640
            raise ValueError("the weights are a pickle, which can run code; only safetensors files are read")
        raise ValueError("the weights are not a safetensors file: the length of the header is wrong")
    try:
        header = json.loads(data[8 : 8 + length])
        places = sorted(_place(name, entry) for name, entry in header.items() if name != "__metadata__")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as exc:
        raise ValueError(f"the weights are not a safetensors file: the header is malformed ({exc})") from exc
    end = 0
    for start, stop in places:
        if start != end:
            raise ValueError("the header of the weights lies: tensors overlap or leave gaps")
        end = stop
    if end != len(data) - 8 - length:
        raise ValueError(f"the header of the weights lies: it describes {end} bytes of {len(data) - 8 - length}")


def _place(name: str, entry: Any) -> tuple[int, int]:
    """The first and last offset of a tensor, whose size must follow from its type and shape."""
    start, stop = entry["data_offsets"]
    shape = entry["shape"]
    if not all(type(value) is int and value >= 0 for value in (start, stop, *shape)):
        raise ValueError(f"tensor {name!r} has an invalid shape or place")
    if stop - start != prod(shape) * SIZES[entry["dtype"]]:
        raise ValueError(f"tensor {name!r} has a shape that its bytes do not fill")
    return start, stop
