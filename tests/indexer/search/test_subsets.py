"""The part of a collection that passes a filter, against a plain count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.catalogue.records import ActiveState
from indexer.generations.manifest import Manifest
from indexer.search.intact import LoadedFiles
from indexer.search.view import ItemRows, View
from indexer.vectors.faiss import FaissIndex

keys = st.integers(0, 12)


def view_of(pks: list[int], changed: dict[int, int]) -> View:
    """An index of images of these items, and live changes: how many images a changed item has now."""
    vectors = np.zeros((len(pks), 2), np.float32)
    ids = np.array([(image, pk) for image, pk in enumerate(pks)], np.int64).reshape(-1, 2)
    live = np.array([(100 + image, pk) for pk, count in changed.items() for image in range(count)], np.int64)
    return View(
        state=ActiveState(1, 1, "e", 0, 0, None),
        manifest=Manifest("c", 1, "e", 2, "l2", len(pks), "Flat", 1.0, 0, {}),
        index=FaissIndex.exact(vectors, "l2"),
        ids=ids,
        rows=ItemRows.of(ids[:, 1]),
        removed=frozenset(changed),
        live_ids=live.reshape(-1, 2),
        live_vectors=np.zeros((len(live.reshape(-1, 2)), 2), np.float32),
        calibration=None,
        lists=None,
        files=LoadedFiles(Path("none"), lambda: None),
    )


@given(st.lists(keys, max_size=30), st.dictionaries(keys, st.integers(0, 3), max_size=6), st.none() | st.sets(keys))
@settings(max_examples=300, deadline=None)
def test_a_subset_holds_what_passes_and_counts_items_once(
    pks: list[int], changed: dict[int, int], wanted: set[int] | None
) -> None:
    view = view_of(pks, changed)
    subset = view.subset(None if wanted is None else np.array(sorted(wanted), np.int64))
    passes = [pk not in changed and (wanted is None or pk in wanted) for pk in pks]
    live = [int(pk) for _, pk in view.live_ids if wanted is None or int(pk) in wanted]
    mask = np.ones(len(pks), dtype=bool) if subset.allowed is None else subset.allowed.mask
    assert mask.tolist() == passes and subset.indexed == sum(passes)
    assert view.live_ids[subset.live, 1].tolist() == live
    assert subset.items == len({pk for pk, is_in in zip(pks, passes, strict=True) if is_in} | set(live))


@given(st.lists(keys, max_size=30), st.sets(keys))
@settings(max_examples=100, deadline=None)
def test_the_positions_of_items(pks: list[int], items: set[int]) -> None:
    rows = ItemRows.of(np.array(pks, np.int64))
    found = rows.positions(rows.known(np.array(sorted(items), np.int64)))
    assert sorted(found.tolist()) == [place for place, pk in enumerate(pks) if pk in items]


def test_images_are_found_at_any_position() -> None:
    view = view_of([1, 1, 2, 3], {})
    order = np.array([2, 0, 3, 1])
    shuffled = replace(view, ids=view.ids[order])
    assert shuffled.positions_of(np.array([0, 1, 2, 3])).tolist() == [1, 3, 0, 2]
