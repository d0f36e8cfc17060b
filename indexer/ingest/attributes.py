"""Limits of an item's attributes, the same for sources and for HTTP."""

from __future__ import annotations

from collections.abc import Mapping

MAX_ATTRIBUTES = 100
MAX_NAME = 200  # characters
MAX_VALUE = 2000
MAX_TOTAL = 20_000  # characters of all names and values: a page of 1,000 results shows them all


def attributes_fault(attributes: Mapping[str, str]) -> str | None:
    """Why an item cannot have these attributes; None if it can."""
    if len(attributes) > MAX_ATTRIBUTES:
        return f"the item has {len(attributes)} attributes; the limit is {MAX_ATTRIBUTES}"
    for name, value in attributes.items():
        if not 1 <= len(name) <= MAX_NAME:
            return f"attribute {name[:40]!r} has a name of {len(name)} characters; expected 1 to {MAX_NAME}"
        if len(value) > MAX_VALUE:
            return f"attribute {name!r} has {len(value)} characters; the limit is {MAX_VALUE}"
    total = sum(len(name) + len(value) for name, value in attributes.items())
    if total > MAX_TOTAL:
        return f"the item's attributes have {total} characters in all; the limit is {MAX_TOTAL}"
    return None
