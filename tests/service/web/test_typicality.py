"""The page says when nothing looks like the photo, and shows the results all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import running
from tests.service.test_typicality import FOREIGN, TYPICAL, large_home  # noqa: F401
from tests.service.web.conftest import PAGE_SIZE, OpenPage, shown, upload

SENTENCE = "99.3 % of this collection's items are more typical of it than your photo. These are the nearest."


def test_nothing_here_looks_like_that(
    open_page: OpenPage,
    large_home: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    foreign, typical = tmp_path / "foreign.jpg", tmp_path / "typical.jpg"
    foreign.write_bytes(FOREIGN)
    typical.write_bytes(TYPICAL)
    with running(create_app(Settings(home=large_home, query_log=0))) as url:
        page = open_page(f"{url}/?collection=shop")
        note = page.locator("#unlike")
        expect(note).to_be_hidden()
        assert len(upload(page, foreign)) == PAGE_SIZE
        expect(note).to_be_visible()
        expect(note.get_by_role("heading")).to_have_text("Nothing here looks like that")
        expect(page.locator("#unlike-text")).to_have_text(SENTENCE)
        above, grid = note.bounding_box(), page.locator(".card").first.bounding_box()
        assert above and grid and above["y"] + above["height"] <= grid["y"]
        page.get_by_role("button", name="Show more").click()
        expect(page.locator(".card")).to_have_count(2 * PAGE_SIZE)
        expect(note).to_be_visible()
        page.locator(".card button").first.click()  # a search by item
        expect(page.locator("#query-title")).not_to_have_text("Your photo")
        expect(note).to_be_hidden()
        page.go_back()
        expect(note).to_be_visible()
        assert len(shown(page)) == 2 * PAGE_SIZE
        upload(page, typical)
        expect(note).to_be_hidden()


@pytest.mark.parametrize("width", [360, 1280])
def test_the_note_fits_the_page(open_page: OpenPage, large_home: Path, tmp_path: Path, width: int) -> None:  # noqa: F811
    foreign = tmp_path / "foreign.jpg"
    foreign.write_bytes(FOREIGN)
    with running(create_app(Settings(home=large_home, query_log=0))) as url:
        page = open_page(f"{url}/?collection=shop", viewport={"width": width, "height": 800})
        upload(page, foreign)
        box = page.locator("#unlike").bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= width
