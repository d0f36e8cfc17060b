"""Photos, an indexed home and pages of results."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from indexer.search.results import SearchPage
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
