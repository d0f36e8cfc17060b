"""Error messages on the page, in a real Chromium against a real server."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from playwright.sync_api import expect

from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from tests.conftest import write_photos
from tests.service.conftest import Serve
from tests.service.web.conftest import (
    PAGE_SIZE,
    OpenPage,
    shown,
    upload,
)


def test_a_text_file_named_jpg_gets_the_servers_reason(
    open_page: OpenPage, shop_url: str, tmp_path: Path, photo_file: Path
) -> None:
    page = open_page(shop_url)
    letter = tmp_path / "letter.jpg"
    letter.write_text("Dear shop, here is no photo.")
    page.set_input_files("#file", letter)
    notice = page.locator("#notice")
    expect(notice).to_contain_text(
        "The file holds text, not an image; expected JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC."
    )
    expect(page.get_by_role("alert")).to_contain_text("holds text")
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#no-preview")).to_be_visible()
    with page.expect_file_chooser() as chooser:
        notice.get_by_role("button", name="Choose another photo").click()
    chooser.value.set_files(photo_file)
    expect(page.locator(".card:not(.skeleton)")).to_have_count(PAGE_SIZE)
    expect(notice).to_be_hidden()


def test_a_file_over_the_limit_is_refused_before_it_is_sent(
    open_page: OpenPage, serve: Serve, indexed_home: Path, tmp_path: Path
) -> None:
    page = open_page(str(serve(indexed_home, max_upload_bytes=2**20).base_url))
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    expect(page.locator("#formats")).to_contain_text("1 MB")
    large = tmp_path / "large.jpg"
    large.write_bytes(b"\xff" * (3 * 2**20))
    page.set_input_files("#file", large)
    expect(page.locator("#notice")).to_contain_text("“large.jpg” is 3.0 MB; the limit is 1.0 MB.")
    assert not [url for url in sent if "search" in url]


def test_an_empty_catalogue_says_how_to_fill_it(
    open_page: OpenPage, serve: Serve, tmp_path: Path, encoder_dir: Path
) -> None:
    home_path = tmp_path / "empty"
    page = open_page(str(serve(home_path).base_url))
    expect(page.locator("#notice")).to_contain_text("There are no items to search yet")
    expect(page.get_by_role("button", name="Choose a photo")).to_be_disabled()
    with Home.open(home_path) as home:
        index_source(home, "late", write_photos(tmp_path / "photos", 6), encoder_ref=str(encoder_dir), processes=0)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#lead")).to_contain_text("6 items")
    expect(page.get_by_role("button", name="Choose a photo")).to_be_enabled()


def test_a_failing_server_is_told_and_can_be_tried_again(
    open_page: OpenPage, serve: Serve, home_copy: Path, photo_file: Path
) -> None:
    page = open_page(str(serve(home_copy).base_url))
    answers = upload(page, photo_file)
    with closing(sqlite3.connect(home_copy / "catalogue.sqlite")) as database:
        database.execute("ALTER TABLE items RENAME TO lost")
        page.locator(".card").first.get_by_role("button").click()
        expect(page.locator("#notice")).to_contain_text("Internal error")
        expect(page.locator("#notice")).to_contain_text("see its log")
        expect(page.locator(".skeleton")).to_have_count(0)
        database.execute("ALTER TABLE lost RENAME TO items")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".card:not(.skeleton)")).to_have_count(PAGE_SIZE)
    assert shown(page) != answers


def test_a_server_out_of_reach_is_told(open_page: OpenPage, shop_url: str, photo_file: Path) -> None:
    page = open_page(shop_url)
    upload(page, photo_file)
    page.context.set_offline(True)
    page.locator(".card").first.get_by_role("button").click()
    expect(page.locator("#notice")).to_contain_text("The server cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".card:not(.skeleton)")).to_have_count(PAGE_SIZE)


def test_a_photo_of_another_browser_is_said_to_be_gone(open_page: OpenPage, shop_url: str, photo_file: Path) -> None:
    page = open_page(shop_url)
    upload(page, photo_file)
    other = open_page(page.url)
    expect(other.locator("#notice")).to_contain_text("This photo is no longer available")
    expect(other.get_by_role("button", name="Choose another photo")).to_be_visible()
    assert upload(other, photo_file) == shown(page)
