"""The cells of a manifest's row as text: ISO 8601 for dates and times, plain decimals for numbers, JSON for lists."""

from __future__ import annotations

import json
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID


class CellError(ValueError):
    """A cell that cannot become text; the message is the end of a sentence that starts with the column."""


def cell_text(value: Any) -> str | None:
    """A cell as text without surrounding white space; None for an empty cell, null or NaN.

    Raises:
        CellError: the cell holds bytes or something else without a text.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    plain = _plain(value)
    if isinstance(plain, (dict, list)):
        return json.dumps(plain, ensure_ascii=False, sort_keys=True)
    return None if plain is None else str(plain).strip() or None


def name_text(value: Any) -> str | None:
    """A cell that names something, as text: a number, a text, a date or a UUID.

    Raises:
        CellError: the cell holds something else.
    """
    if isinstance(value, (bool, list, tuple, dict)):
        raise CellError(f"must be text or a number; found {kind_of(value)}")
    return cell_text(value)


def kind_of(value: Any) -> str:
    """The type of a cell in a reader's words."""
    kinds = {bool: "true or false", dict: "an object", list: "a list", tuple: "a list", bytes: "bytes"}
    kinds |= {int: "a number", float: "a number", Decimal: "a number", str: "text"}
    return kinds.get(type(value), type(value).__name__)


def _plain(value: Any) -> Any:
    """A value of types that JSON can write; NaN becomes None."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return _scalar(value)


def _scalar(value: Any) -> str | None:
    if isinstance(value, Decimal):
        return None if value.is_nan() else format(value, "f")
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"PT{format(Decimal(value // timedelta(microseconds=1)) / 1_000_000, 'f')}S"
    if isinstance(value, UUID):
        return str(value)
    raise CellError(f"holds {kind_of(value)}; expected text, a number, a date or a list")
