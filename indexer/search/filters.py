"""Filters: parsing `key=value`, and the items that match."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.errors import InvalidRequestError

if TYPE_CHECKING:
    from indexer.catalogue.catalogue import Catalogue

KEPT = 64  # most recently used filters whose matches are kept
NAMES_LISTED = 50  # attributes that an error message lists
LOOKED_UP = 5000  # changes since a filter was last used, beyond which all items are looked at again


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


class _Matches(NamedTuple):
    """Sorted keys of the items that match, after the change `last_change`."""

    last_change: int
    items: NDArray[np.int64]


class FilterMatches:
    """The items that match filters; after a change, only the changed items are looked at. Threads may share it."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._known: OrderedDict[tuple[int, tuple[tuple[str, str], ...]], _Matches] = OrderedDict()
        self._lock = threading.Lock()

    def items(self, collection_id: int, filters: Mapping[str, str], last_change: int) -> NDArray[np.int64]:
        """Sorted keys of the items whose attributes have all of these values.

        Args:
            last_change: the collection's last change, or an earlier one.

        Raises:
            InvalidRequestError: no item has an attribute of this name.
        """
        key = (collection_id, tuple(sorted(filters.items())))
        with self._lock:
            known = self._known.get(key)
        if known is None or known.last_change < last_change:
            # Changes that are made meanwhile are looked at once more the next time.
            known = _Matches(last_change, self._looked_up(collection_id, filters, known))
            with self._lock:
                self._known[key] = known
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return known.items

    def _looked_up(self, collection_id: int, filters: Mapping[str, str], known: _Matches | None) -> NDArray[np.int64]:
        attributes, changes = self._catalogue.attributes, self._catalogue.changes
        changed = None
        if known is not None:
            changed = changes.changed_items(collection_id, known.last_change, at_most=LOOKED_UP)
        if known is None or changed is None:
            found = np.array(attributes.matching_items(collection_id, filters), dtype=np.int64)
        else:
            matching = attributes.matching_items(collection_id, filters, changed)
            others = known.items[~np.isin(known.items, np.array(sorted(changed), dtype=np.int64))]
            found = np.sort(np.concatenate([others, np.array(matching, dtype=np.int64)]))
        if not len(found):
            self._check_names(collection_id, filters)
        return found

    def _check_names(self, collection_id: int, filters: Mapping[str, str]) -> None:
        known = self._catalogue.attributes.names(collection_id)
        for name in filters:
            if name not in known:
                names = ", ".join(sorted(known)[:NAMES_LISTED]) or "none"
                raise InvalidRequestError("filter", f"no item has an attribute {name!r}; attributes are {names}")
