"""Photos, an indexed home and pages of results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from indexer.ingest.items import delete_item, put_item
from indexer.search.results import SearchPage
from indexer.search.searcher import Searcher
from tests.conftest import draw_photo, write_photos


def jpeg(number: int) -> bytes:
    import io

    buffer = io.BytesIO()
    draw_photo(number).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def names(page: SearchPage) -> list[str]:
    return [hit.item_id for hit in page.results]


@pytest.fixture
def indexed(home: Home, tmp_path: Path, encoder_dir: Path) -> Home:
    index_source(home, "default", write_photos(tmp_path / "shop", 12), encoder_ref=str(encoder_dir))
    return home


def write_coloured(shop: Path, count: int) -> Path:
    """A manifest of items with three photos each, and of a copy of each item; red and blue ones."""
    write_photos(shop, count)
    rows = ["item_id,image,colour"]
    for number, path in enumerate(sorted(shop.rglob("*.jpg"))):
        colour = "red" if number // 3 % 2 else "blue"
        rows.append(f"item-{number // 3},{path.relative_to(shop)},{colour}")
        rows.append(f"copy-{number // 3},{path.relative_to(shop)},{colour}")
    (shop / "c.csv").write_text("\n".join(rows))
    return shop / "c.csv"


def change_live(home: Home, searcher: Searcher) -> None:
    """Replace an item, add one with two photos, and delete one."""
    put_item(home, searcher, "default", "item-1", title=None, attributes={"colour": "blue"}, images=[jpeg(77)])
    put_item(home, searcher, "default", "new", title=None, attributes={"colour": "red"}, images=[jpeg(5), jpeg(6)])
    delete_item(home, "default", "copy-2")


def check_every_page(home: Home, searcher: Searcher, *, atol: float) -> None:
    """Compare all pages of a search, with filters and without, with the best scores over the stored vectors."""
    encoder_id = str(home.catalogue.search_state("default").encoder_id)
    pks = list(range(1, 200))
    stored = home.catalogue.vectors.of_items(encoder_id, searcher.embedder(encoder_id).described.dim, pks)
    summaries = home.catalogue.items.summaries(pks)
    query = stored.vectors[4]
    for wanted in (None, {"colour": "red"}, {"colour": "nothing"}):
        best: dict[int, float] = {}
        for pk, score in zip(stored.ids[:, 1].tolist(), (stored.vectors @ query).tolist(), strict=True):
            if wanted is None or summaries[pk].attributes == wanted:
                best[pk] = max(best.get(pk, -2.0), score)
        expected = sorted(best.values(), reverse=True)
        seen: list[str] = []
        scores: list[float] = []
        for offset in range(0, len(best) + 4, 4):
            page = searcher.search_vector("default", query.tolist(), k=4, offset=offset, filters=wanted)
            assert page.total == len(best)
            seen += names(page)
            scores += [hit.score for hit in page.results]
        assert len(seen) == len(set(seen)) == len(best)
        np.testing.assert_allclose(scores, expected, atol=atol)
