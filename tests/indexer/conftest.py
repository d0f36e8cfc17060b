"""Homes and comparisons that the indexer's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from indexer.catalogue.home import Home
from indexer.catalogue.schema import images, items, vectors
from indexer.generations.manifest import load_ids
from tests.indexer.swapped import drawn, drawn_with_counts, write  # noqa: F401  # fixtures of every test below


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with Home.open(tmp_path / "home", create=True) as opened:
        yield opened


@pytest.fixture
def any_home(tmp_path: Path, database_url: str) -> Iterator[Home]:
    """A home on SQLite, then one on PostgreSQL."""
    with Home.open(tmp_path / "home", database_url=database_url, create=True) as opened:
        yield opened


def stored(home: Home) -> dict[tuple[str, str], tuple[Any, ...]]:
    """All that is stored of each image, by (item_id, uri): what it says, and its vector."""
    query = (
        sa.select(
            items.c.item_id, images.c.uri, images.c.status, images.c.reason, images.c.sha256, images.c.width,
            items.c.title, items.c.attributes, vectors.c.encoder_id, vectors.c.vector,
        )
        .select_from(images.join(items).outerjoin(vectors))
        .order_by(items.c.item_id, images.c.uri)
    )  # fmt: skip
    with home.catalogue.read() as connection:
        rows = connection.execute(query).all()
    found = {(row[0], row[1]): tuple(row[2:]) for row in rows}
    assert len(found) == len(rows), "an image has more than one vector"
    return found


def served(home: Home, collection: str = "default") -> dict[str, bytes]:
    """The vectors of the active generation's index, by item_id."""
    import faiss

    state = home.catalogue.search_state(collection)
    assert state.generation is not None
    directory = home.generation_directory(collection, state.generation)
    index = faiss.read_index(str(directory / "index.faiss"))
    ids = load_ids(directory)
    names = home.catalogue.items.summaries(ids[:, 1].tolist())
    return {names[int(pk)].item_id: np.asarray(index.reconstruct(place)).tobytes() for place, (_, pk) in enumerate(ids)}
