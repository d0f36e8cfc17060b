"""Searches on the page, in a real Chromium against a real server."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from indexer.calibrate.calibration import Calibration
from indexer.calibrate.probability import Curve, HitCurve
from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from service.app import create_app
from service.auth import create_key
from service.settings import Settings
from tests.conftest import draw_photo, write_photos
from tests.service.conftest import ITEMS, Serve, running
from tests.service.web.conftest import (
    PAGE_SIZE,
    SEARCH,
    OpenPage,
    Recorder,
    expected,
    in_url,
    similar,
    upload,
    wait_for_answers,
    wait_for_picture,
)


def test_an_uploaded_photo_shows_what_the_api_finds(
    open_page: OpenPage, shop_url: str, client: httpx.Client, photo: bytes, photo_file: Path
) -> None:
    page = open_page(shop_url)
    expect(page.get_by_role("heading", level=1)).to_have_text("Find similar items")
    expect(page.locator("#lead")).to_contain_text(f"{ITEMS} items")
    assert upload(page, photo_file) == expected(client, photo)
    expect(page.locator("#status")).to_have_text(f"{PAGE_SIZE} of {ITEMS} items, most similar first")
    first = page.locator(".card").first
    hit = client.post(SEARCH, files={"image": photo}, data={"k": "1"}).json()["results"][0]
    expect(first.get_by_role("heading")).to_have_text(hit["title"])
    expect(first.locator(".category")).to_have_text(hit["attributes"]["category"])
    expect(first.locator(".attributes")).to_contain_text(hit["attributes"]["colour"])
    expect(first.locator(".score-number")).to_have_text(f"{hit['score']:.2f}")
    width = first.locator(".bar-fill").evaluate("bar => bar.offsetWidth / bar.parentElement.offsetWidth")
    assert width == pytest.approx(hit["score"], abs=0.02)
    wait_for_picture(page.locator(".card img").first)
    assert in_url(page)["collection"] == ["shop"]


def test_a_large_photo_is_sent_as_it_is(open_page: OpenPage, indexed_home: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    draw_photo(1004, (3200, 2400)).save(large, quality=97)
    bodies: list[bytes] = []
    app = create_app(Settings(home=indexed_home, query_log=0))
    app.add_middleware(Recorder, bodies=bodies)
    with running(app) as url:
        page = open_page(url)
        upload(page, large)
        page.close()
    assert large.read_bytes() in b"".join(bodies)


def test_more_like_this_and_back_and_forward_and_reload(
    open_page: OpenPage, shop_url: str, client: httpx.Client, photo_file: Path
) -> None:
    page = open_page(shop_url)
    first = upload(page, photo_file)
    page.locator(".card").nth(2).get_by_role("button").click()
    more = similar(client, first[2])
    wait_for_answers(page, more)
    assert in_url(page)["item_id"] == [first[2]]
    expect(page.locator("#query-title")).to_have_text(
        client.get(f"/v1/collections/shop/items/{first[2]}").json()["title"]
    )
    expect(page.locator("#crop")).to_be_hidden()
    expect(page.locator("#answers-title")).to_be_focused()
    page.go_back()
    wait_for_answers(page, first)
    expect(page.locator("#query-title")).to_have_text("Your photo")
    expect(page.locator("#crop")).to_be_visible()
    page.go_forward()
    wait_for_answers(page, more)
    page.reload()
    wait_for_answers(page, more)
    page.go_back()
    wait_for_answers(page, first)
    page.reload()
    wait_for_answers(page, first)
    wait_for_picture(page.locator("#query-image"))
    page.locator("#home-link").click()
    expect(page.locator("#start")).to_be_visible()
    expect(page.locator(".card")).to_have_count(0)


def test_filters_narrow_the_answers_and_stand_in_the_url(
    open_page: OpenPage, shop_url: str, client: httpx.Client, photo: bytes, photo_file: Path
) -> None:
    page = open_page(shop_url)
    whole = upload(page, photo_file)
    chips = page.get_by_role("group", name="Category")
    chips.get_by_role("button", name=re.compile("^hat")).click()
    hats = expected(client, photo, filter="category=hat")
    wait_for_answers(page, hats)
    assert {item.split("/")[0] for item in hats} == {"hat"}
    expect(chips.get_by_role("button", name=re.compile("^hat"))).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#status")).to_have_text("10 items, most similar first")
    page.get_by_label("Colour").select_option("navy")
    both = expected(client, photo, filter=["category=hat", "colour=navy"])
    wait_for_answers(page, both)
    assert set(in_url(page)["filter"]) == {"category=hat", "colour=navy"}
    page.reload()
    wait_for_answers(page, both)
    page.get_by_label("Colour").select_option("")
    chips.get_by_role("button", name="All").click()
    wait_for_answers(page, whole)


def test_a_filter_that_nothing_passes_can_be_cleared(
    open_page: OpenPage, shop_url: str, client: httpx.Client, photo: bytes, photo_file: Path
) -> None:
    page = open_page(shop_url)
    whole = upload(page, photo_file)
    page.goto(f"{page.url}&filter=category%3Dchair")
    expect(page.locator("#notice")).to_contain_text("No items match these filters")
    page.get_by_role("button", name="Clear filters").click()
    wait_for_answers(page, whole)


def test_show_more_goes_on_where_the_page_ended(
    open_page: OpenPage, shop_url: str, client: httpx.Client, photo: bytes, photo_file: Path
) -> None:
    page = open_page(shop_url)
    upload(page, photo_file)
    page.get_by_role("button", name="Show more").click()
    everything = expected(client, photo, k=str(ITEMS))
    wait_for_answers(page, everything)
    expect(page.locator("#end")).to_have_text("No more items.")
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    expect(page.locator(".card").nth(PAGE_SIZE).get_by_role("button")).to_be_focused()
    page.reload()
    wait_for_answers(page, everything)


def test_a_photo_can_be_pasted_or_dropped(
    open_page: OpenPage, shop_url: str, client: httpx.Client, photo: bytes
) -> None:
    page = open_page(shop_url)
    expect(page.locator("#lead")).to_contain_text(f"{ITEMS} items")
    data = base64.b64encode(photo).decode()
    give = """([kind, data]) => {
        const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], 'given.jpg', { type: 'image/jpeg' }));
        const options = { bubbles: true, cancelable: true };
        for (const name of kind === 'paste' ? ['paste'] : ['dragenter', 'dragover', 'drop']) {
            const event = kind === 'paste'
                ? new ClipboardEvent(name, { ...options, clipboardData: transfer })
                : new DragEvent(name, { ...options, dataTransfer: transfer });
            document.body.dispatchEvent(event);
        }
    }"""
    page.evaluate(give, ["paste", data])
    wait_for_answers(page, expected(client, photo))
    page.locator("#home-link").click()
    expect(page.locator(".card")).to_have_count(0)
    page.evaluate(give, ["drop", data])
    wait_for_answers(page, expected(client, photo))
    expect(page.locator("#drop-cover")).to_be_hidden()


def test_a_key_is_asked_for_and_kept_in_the_tab(
    open_page: OpenPage, serve: Serve, home_copy: Path, photo_file: Path
) -> None:
    with Home.open(home_copy) as home:
        key = create_key(home.catalogue, "page", "read")
    page = open_page(str(serve(home_copy, public_read=False).base_url))
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("API key").fill("wrong")
    dialog.get_by_role("button", name="Continue").click()
    expect(dialog).to_contain_text("The API key is unknown or revoked")
    dialog.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    upload(page, photo_file)
    wait_for_picture(page.locator(".card img").first)
    page.reload()
    expect(page.locator(".card:not(.skeleton)")).to_have_count(PAGE_SIZE)
    expect(dialog).to_be_hidden()
    assert key not in page.url


def test_several_collections_can_be_chosen_from(
    open_page: OpenPage, serve: Serve, home_copy: Path, tmp_path: Path, encoder_dir: Path, photo_file: Path
) -> None:
    with Home.open(home_copy) as home:
        folder = write_photos(tmp_path / "photos", 5, start=200)
        index_source(home, "attic", folder, encoder_ref=str(encoder_dir), processes=0)
    page = open_page(str(serve(home_copy).base_url))
    picker = page.get_by_label("Collection")
    expect(picker).to_have_value("attic")
    upload(page, photo_file)
    expect(page.locator("#status")).to_have_text("5 items, most similar first")
    picker.select_option("shop")
    expect(page.locator("#status")).to_have_text(f"{PAGE_SIZE} of {ITEMS} items, most similar first")
    page.go_back()
    expect(picker).to_have_value("attic")
    expect(page.locator("#status")).to_have_text("5 items, most similar first")


def test_results_say_how_probably_they_are_the_same_product(
    open_page: OpenPage, serve: Serve, home_copy: Path, photo_file: Path
) -> None:
    """The shop is too small to be calibrated: what a calibration would store is put there by hand."""
    page = open_page(str(serve(home_copy).base_url))
    upload(page, photo_file)
    expect(page.locator(".score-number")).to_have_count(PAGE_SIZE)
    expect(page.locator(".probability")).to_have_count(0)
    words = {
        0.924: "92 % likely the same product",
        0.004: "under 1 % likely the same product",
        0.997: "over 99 % likely the same product",
    }
    for probability, text in words.items():
        put_calibration(home_copy, probability)
        upload(page, photo_file)
        expect(page.locator(".card").first.locator(".probability")).to_have_text(text)
        expect(page.locator(".probability")).to_have_count(PAGE_SIZE)


def put_calibration(path: Path, probability: float) -> None:
    """Every hit of the shop has this probability."""
    with Home.open(path) as home:
        state = home.catalogue.search_state("shop")
        level = Curve("isotonic", ((0.0, probability),))
        found = Calibration(
            curve=HitCurve(level, 0.0, level),
            encoder_id=str(state.encoder_id),
            truth="photos",
            queries=60,
            pairs=600,
            positives=60,
            images=60,
            present=0.9,
            ece=0.0,
            ece_ci=(0.0, 0.0),
            ece_chance=0.0,
            ece_first=0.0,
            ece_first_ci=(0.0, 0.0),
            ece_first_chance=0.0,
            brier=0.0,
            log_loss=0.0,
            reliability=(),
        )
        home.catalogue.calibrations.put(state.collection_id, found.encoder_id, found.to_json())
