"""Parsing of `key=value` filters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from indexer.errors import InvalidRequestError

if TYPE_CHECKING:
    pass


def parse_filters(given: Iterable[str]) -> dict[str, str]:
    """Parse `key=value` texts; raises `InvalidRequestError` for another form, or a key that is given twice."""
    filters: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InvalidRequestError("filter", f"filter {text!r} must be key=value")
        if key in filters:
            raise InvalidRequestError("filter", f"filter {key!r} is given twice; give one value")
        filters[key] = value
    return filters
