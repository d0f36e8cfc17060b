"""The page in a real Chromium, against a real server."""

from __future__ import annotations

import base64
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indexer.calibrate.calibration import Calibration
from indexer.calibrate.probability import Curve, HitCurve
from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from service.app import create_app
from service.auth import create_key
from service.settings import Settings
from tests import finding
from tests.conftest import draw_photo, write_photos
from tests.service.conftest import ITEMS, Serve, running

FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-quic --no-first-run "
    "--disable-component-update --disable-sync"
)
PAGE_SIZE = 24
SEARCH = "/v1/collections/shop/search"
OpenPage = Callable[..., Page]


def find_chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        message = "no Chromium on the PATH (apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS.split())
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens pages in contexts of their own; an error in a page's script fails the test."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def on_console(kind: str, text: str) -> None:
        # The browser itself reports refused requests; those are what some tests are about.
        if kind == "error" and "Failed to load resource" not in text:
            errors.append(text)

    def start(url: str, **options: Any) -> Page:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: on_console(message.type, message.text))
        page.on("filechooser", lambda chooser: None)  # no native dialog may open, at whatever moment
        page.goto(url)
        return page

    yield start
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture(scope="module")
def photo_file(tmp_path_factory: pytest.TempPathFactory, photo: bytes) -> Path:
    path = tmp_path_factory.mktemp("photo") / "my bag.jpg"
    path.write_bytes(photo)
    return path


def shown(page: Page) -> list[str]:
    """The item_ids in the grid, once it holds answers."""
    expect(page.locator("#grid")).not_to_have_attribute("aria-busy", "true")
    ids: list[str] = page.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.itemId)")
    return ids


def upload(page: Page, path: Path) -> list[str]:
    page.set_input_files("#file", path)
    expect(page.locator("#status")).to_contain_text("most similar first")
    return shown(page)


def in_url(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def expected(client: httpx.Client, photo: bytes, **form: Any) -> list[str]:
    answer = client.post(SEARCH, files={"image": photo}, data={"k": str(PAGE_SIZE), **form}).json()
    return [hit["item_id"] for hit in answer["results"]]


def similar(client: httpx.Client, item_id: str, **query: Any) -> list[str]:
    path = f"/v1/collections/shop/items/{quote(item_id, safe='')}/similar"
    answer = client.get(path, params={"k": PAGE_SIZE, **query}).json()
    return [hit["item_id"] for hit in answer["results"]]


def wait_for_answers(page: Page, ids: list[str]) -> None:
    """Until the grid shows these items, in this order."""
    cards = page.locator(".card")
    expect(cards).to_have_count(len(ids))
    for place, item_id in enumerate(ids):
        expect(cards.nth(place)).to_have_attribute("data-item-id", item_id)


def wait_for_picture(picture: Locator) -> None:
    """Until it is loaded. The page's policy forbids `wait_for_function`, which evaluates text."""
    expect(picture).not_to_have_js_property("naturalWidth", 0)


def drag(page: Page, handle: str, by: tuple[float, float]) -> None:
    """Drag a handle of the frame by a share of the photo."""
    stage = page.locator("#stage").bounding_box()
    box = page.locator(f".handle.{handle}").bounding_box()
    assert stage and box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by[0] * stage["width"] / 2, y + by[1] * stage["height"] / 2)
    page.mouse.move(x + by[0] * stage["width"], y + by[1] * stage["height"])
    page.mouse.up()


def has_no_sideways_scroll(page: Page) -> bool:
    fits: bool = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return fits


def test_an_uploaded_photo_shows_what_the_api_finds(
    open_page: OpenPage, shop_url: str, client: httpx.Client, photo: bytes, photo_file: Path
) -> None:
    page = open_page(shop_url)
    expect(page.get_by_role("heading", level=1)).to_have_text("Find what looks like it")
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


class Recorder:
    """Keeps the request bodies that an app reads."""

    def __init__(self, app: ASGIApp, bodies: list[bytes]) -> None:
        self.app = app
        self.bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def recorded() -> Message:
            message = await receive()
            self.bodies.append(message.get("body", b""))
            return message

        await self.app(scope, recorded, send)


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


def test_dragging_the_frame_searches_with_that_part(
    open_page: OpenPage, shop_url: str, client: httpx.Client, photo: bytes, photo_file: Path
) -> None:
    page = open_page(shop_url)
    whole = upload(page, photo_file)
    drag(page, "nw", (0.4, 0.35))
    page.wait_for_url("**region=**")
    (region,) = in_url(page)["region"]
    x, y, width, height = map(float, region.split(","))
    assert (x, y, x + width, y + height) == pytest.approx((0.4, 0.35, 1, 1), abs=0.02)
    part = expected(client, photo, region=region)
    assert part != whole
    wait_for_answers(page, part)
    page.get_by_role("button", name="Whole photo").click()
    wait_for_answers(page, whole)
    assert "region" not in in_url(page)


def test_the_item_that_was_found_is_framed_and_a_frame_of_ones_own_overrides_it(
    open_page: OpenPage, serve: Serve, tmp_path: Path
) -> None:
    client = serve(finding.shop_that_finds(tmp_path))
    sent = finding.photo(100, 30)
    used = client.post(SEARCH, files={"image": sent}).json()["used"]
    assert used["chosen_by"] == "encoder" and 0.9 < used["confidence"] <= 1
    (tmp_path / "query.png").write_bytes(sent)
    page = open_page(str(client.base_url))
    upload(page, tmp_path / "query.png")
    expect(page.locator("#found")).to_be_visible()
    expect(page.locator("#found-note")).to_contain_text("The item was found in the dashed frame")
    frame, stage = page.locator("#found").bounding_box(), page.locator("#query-image").bounding_box()
    assert frame is not None and stage is not None
    left, width = (frame["x"] - stage["x"]) / stage["width"], frame["width"] / stage["width"]
    assert (left, width) == pytest.approx((used["region"][0], used["region"][2]), abs=0.03)
    drag(page, "nw", (0.3, 0.2))
    page.wait_for_url("**region=**")
    expect(page.locator("#found")).to_be_hidden()
    expect(page.locator("#found-note")).to_be_hidden()
    page.go_back()
    expect(page.locator("#found")).to_be_visible()


def test_each_of_several_items_can_be_searched_with_by_mouse_and_by_key(
    open_page: OpenPage, serve: Serve, tmp_path: Path
) -> None:
    client = serve(finding.shop_that_finds(tmp_path))
    sent = finding.several()
    regions = [
        item["region"]
        for item in client.post(SEARCH, files={"image": sent}, data={"find_items": "true"}).json()["regions"]
    ]
    (tmp_path / "query.png").write_bytes(sent)
    page = open_page(str(client.base_url))
    upload(page, tmp_path / "query.png")
    frames = page.get_by_role("group", name="Items found in the photo").get_by_role("button")
    expect(frames).to_have_count(3)
    expect(page.locator("#items-note")).to_have_text("3 items were found; choose one to search with it alone.")
    stage = page.locator("#query-image").bounding_box()
    assert stage is not None
    for number, region in enumerate(regions, start=1):
        frame = page.get_by_role("button", name=f"Item {number} of 3").bounding_box()
        assert frame is not None
        shares = (
            (frame["x"] - stage["x"]) / stage["width"], (frame["y"] - stage["y"]) / stage["height"],
            frame["width"] / stage["width"], frame["height"] / stage["height"],
        )  # fmt: skip
        assert shares == pytest.approx(region, abs=0.02)

    def asked() -> list[float]:
        return [float(part) for part in in_url(page)["region"][0].split(",")]

    page.get_by_role("button", name="Item 2 of 3").click()
    page.wait_for_url("**region=**")
    assert asked() == pytest.approx(regions[1], abs=0.002)
    expect(page.get_by_role("button", name="Item 2 of 3")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#found")).to_be_hidden()
    page.get_by_role("button", name="Item 3 of 3").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Item 3 of 3")).to_have_attribute("aria-pressed", "true")
    assert asked() == pytest.approx(regions[2], abs=0.002)
    expect(page.get_by_role("button", name="Item 3 of 3")).to_be_focused()
    page.reload()
    expect(page.get_by_role("button", name="Item 3 of 3")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Item 3 of 3").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Item 3 of 3")).to_have_attribute("aria-pressed", "false")
    assert "region" not in in_url(page)
    (tmp_path / "one.png").write_bytes(finding.photo(100, 30))
    upload(page, tmp_path / "one.png")
    expect(frames).to_have_count(0)
    expect(page.locator("#items-note")).to_be_hidden()


def test_a_drag_that_begins_on_an_item_draws_or_moves_a_frame_and_a_click_chooses_the_item(
    open_page: OpenPage, serve: Serve, tmp_path: Path
) -> None:
    client = serve(finding.shop_that_finds(tmp_path))
    (tmp_path / "query.png").write_bytes(finding.several())
    page = open_page(str(client.base_url))
    upload(page, tmp_path / "query.png")
    first = page.get_by_role("button", name="Item 1 of 3")
    expect(first).to_have_attribute("aria-pressed", "false")
    item, stage = first.bounding_box(), page.locator("#stage").bounding_box()
    assert item and stage

    def at(across: float, down: float) -> tuple[float, float]:
        """A point by its share of the item."""
        return item["x"] + across * item["width"], item["y"] + down * item["height"]

    def press_and_release(begin: tuple[float, float], end: tuple[float, float]) -> None:
        page.mouse.move(*begin)
        page.mouse.down()
        page.mouse.move(*end, steps=3)
        page.mouse.up()

    def expect_frame(left: float, top: float, right: float, bottom: float) -> None:
        """Waits for the answers to the frame between two points of the item."""
        (x, y), (to_x, to_y) = at(left, top), at(right, bottom)
        places = (x - stage["x"], y - stage["y"], to_x - x, to_y - y)
        sizes = (stage["width"], stage["height"]) * 2
        wanted = [place / size for place, size in zip(places, sizes, strict=True)]
        page.wait_for_url(lambda url: close_to(parse_qs(urlsplit(url).query).get("region"), wanted))
        shown(page)
        expect(first).to_have_attribute("aria-pressed", "false")

    def close_to(region: list[str] | None, wanted: list[float]) -> bool:
        return region is not None and [float(part) for part in region[0].split(",")] == pytest.approx(wanted, abs=0.012)

    press_and_release(at(0.05, 0.05), at(0.85, 0.85))  # all of it on the button
    expect_frame(0.05, 0.05, 0.85, 0.85)
    press_and_release(at(0.4, 0.4), at(0.5, 0.5))
    expect_frame(0.15, 0.15, 0.95, 0.95)
    x, y = at(0.55, 0.55)
    press_and_release((x, y), (x + 2, y + 2))  # a hand that is not quite still, within the frame
    expect(first).to_have_attribute("aria-pressed", "true")
    shown(page)
    press_and_release(at(0.4, 0.6), at(0.6, 0.3))
    expect_frame(0.2, -0.3, 1.2, 0.7)
    page.keyboard.press("Escape")
    first.click()
    expect(first).to_have_attribute("aria-pressed", "true")
    first.click()
    expect(first).to_have_attribute("aria-pressed", "false")
    assert "region" not in in_url(page)
    first.click()
    expect(first).to_have_attribute("aria-pressed", "true")
    drag(page, "se", (0.2, 0.05))  # a handle lies above the button
    width, height = 0.2 * stage["width"] / item["width"], 0.05 * stage["height"] / item["height"]
    expect_frame(0, 0, 1 + width, 1 + height)


def test_the_items_of_a_photo_are_asked_for_once(open_page: OpenPage, tmp_path: Path) -> None:
    home = finding.shop_that_finds(tmp_path)
    (tmp_path / "query.png").write_bytes(finding.several())
    (tmp_path / "one.png").write_bytes(finding.photo(100, 30))
    bodies: list[bytes] = []
    app = create_app(Settings(home=home, query_log=0))
    app.add_middleware(Recorder, bodies=bodies)

    def asked() -> tuple[int, int]:
        """How many searches there were by photo, and how many of those asked for the items."""
        read = b"".join(bodies)
        return read.count(b'name="offset"'), read.count(b'name="find_items"')

    with running(app) as url:
        page = open_page(url)
        upload(page, tmp_path / "query.png")
        frames = page.locator(".item-frame")
        expect(frames).to_have_count(3)
        assert asked() == (1, 1)
        drag(page, "nw", (0.3, 0.2))
        page.wait_for_url("**region=**")
        expect(page.locator("#status")).to_contain_text("most similar first")
        assert asked() == (2, 1)
        page.get_by_role("button", name="Item 3 of 3").click()
        expect(page.get_by_role("button", name="Item 3 of 3")).to_have_attribute("aria-pressed", "true")
        assert asked() == (3, 1)
        expect(frames).to_have_count(3)
        with page.expect_response("**/search"):
            upload(page, tmp_path / "one.png")
        expect(frames).to_have_count(0)
        assert asked() == (4, 2)
        page.close()


def test_a_frame_is_drawn_moved_and_undone_by_going_back(
    open_page: OpenPage, shop_url: str, client: httpx.Client, photo: bytes, photo_file: Path
) -> None:
    page = open_page(shop_url)
    whole = upload(page, photo_file)
    stage = page.locator("#stage").bounding_box()
    assert stage

    def at(x: float, y: float) -> tuple[float, float]:
        return stage["x"] + x * stage["width"], stage["y"] + y * stage["height"]

    for begin, end in (((0.2, 0.2), (0.6, 0.7)), ((0.4, 0.4), (0.5, 0.35))):  # draws, then moves what was drawn
        page.mouse.move(*at(*begin))
        page.mouse.down()
        page.mouse.move(*at(*end))
        page.mouse.up()
        page.wait_for_url("**region=**")
    page.wait_for_url("**region=0.3**")
    region = in_url(page)["region"][0]
    assert [float(part) for part in region.split(",")] == pytest.approx([0.3, 0.15, 0.4, 0.5], abs=0.02)
    wait_for_answers(page, expected(client, photo, region=region))
    page.go_back()
    wait_for_answers(page, whole)
    expect(page.locator("#crop")).to_have_class(re.compile("whole"))


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
    expect(page.locator("#notice")).to_contain_text("Nothing passes these filters")
    page.get_by_role("button", name="Clear the filters").click()
    wait_for_answers(page, whole)


def test_show_more_goes_on_where_the_page_ended(
    open_page: OpenPage, shop_url: str, client: httpx.Client, photo: bytes, photo_file: Path
) -> None:
    page = open_page(shop_url)
    upload(page, photo_file)
    page.get_by_role("button", name="Show more").click()
    everything = expected(client, photo, k=str(ITEMS))
    wait_for_answers(page, everything)
    expect(page.locator("#end")).to_have_text("That is all of them.")
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    expect(page.locator(".card").nth(PAGE_SIZE).get_by_role("button")).to_be_focused()
    page.reload()
    wait_for_answers(page, everything)


def test_everything_can_be_done_by_keyboard_alone(
    open_page: OpenPage, shop_url: str, client: httpx.Client, photo: bytes, photo_file: Path
) -> None:
    page = open_page(shop_url)
    expect(page.locator("#lead")).to_contain_text(f"{ITEMS} items")

    def tab_to(selector: str, most: int = 12) -> None:
        for _ in range(most):
            page.keyboard.press("Tab")
            if page.locator(f"{selector}:focus").count():
                outline = page.evaluate("""() => {
                    const ring = (element) => element && parseFloat(getComputedStyle(element).outlineWidth) > 0
                        && getComputedStyle(element).outlineStyle !== 'none';
                    return ring(document.activeElement) || ring(document.activeElement.closest('.card'))
                }""")
                assert outline or selector == ".skip", f"{selector} does not show that it has the focus"
                return
        raise AssertionError(f"{selector} is not reached by Tab")

    tab_to(".skip", 1)
    tab_to("#dropzone .primary")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(photo_file)
    wait_for_answers(page, expected(client, photo))
    page.keyboard.press("Home")
    tab_to("#crop")
    for _ in range(15):
        page.keyboard.press("Shift+ArrowLeft")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.wait_for_url("**region=0.1**")
    region = in_url(page)["region"][0]
    assert [float(part) for part in region.split(",")] == pytest.approx([0.1, 0, 0.7, 1], abs=0.001)
    expect(page.locator("#crop")).to_have_attribute("aria-label", re.compile("10 % left and 0 % top, 70 % wide"))
    wait_for_answers(page, expected(client, photo, region=region))
    page.keyboard.press("Escape")
    wait_for_answers(page, expected(client, photo))
    tab_to('.chip[data-filter="category=mug"]')
    page.keyboard.press("Enter")
    mugs = expected(client, photo, filter="category=mug")
    wait_for_answers(page, mugs)
    expect(page.locator('.chip[data-filter="category=mug"]')).to_be_focused()
    tab_to(".more-like")
    page.keyboard.press("Enter")
    wait_for_answers(page, similar(client, mugs[0], filter="category=mug"))
    expect(page.locator("#answers-title")).to_be_focused()


def test_a_phone_needs_no_sideways_scrolling(
    open_page: OpenPage, shop_url: str, photo_file: Path, tmp_path: Path
) -> None:
    phone = {"viewport": {"width": 375, "height": 720}, "has_touch": True, "is_mobile": True}
    page = open_page(shop_url, **phone)
    expect(page.locator("#lead")).to_contain_text(f"{ITEMS} items")
    expect(page.get_by_role("button", name="Take a photo")).to_be_visible()
    assert has_no_sideways_scroll(page)
    first = upload(page, photo_file)
    assert has_no_sideways_scroll(page)
    page.locator(".card").first.get_by_role("button").tap()
    page.wait_for_url("**item_id=**")
    assert shown(page)[0] != first[0]
    assert has_no_sideways_scroll(page)
    broken = tmp_path / ("a-very-long-name-without-any-space" * 4 + ".jpg")
    broken.write_text("text")
    page.set_input_files("#file", broken)
    expect(page.locator("#notice")).to_be_visible()
    assert has_no_sideways_scroll(page)


def test_the_frame_can_be_dragged_by_finger(open_page: OpenPage, shop_url: str, photo_file: Path) -> None:
    page = open_page(shop_url, viewport={"width": 375, "height": 720}, has_touch=True, is_mobile=True)
    upload(page, photo_file)
    stage, box = page.locator("#stage").bounding_box(), page.locator(".handle.se").bounding_box()
    assert stage and box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        at = [{"x": px, "y": py} for px, py in points]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    touch("touchStart", (x, y))
    for step in (0.1, 0.2, 0.3):
        touch("touchMove", (x - step * stage["width"], y - step * stage["height"]))
    touch("touchEnd")
    page.wait_for_url("**region=**")
    region = [float(part) for part in in_url(page)["region"][0].split(",")]
    assert region == pytest.approx([0, 0, 0.7, 0.7], abs=0.03)


def test_a_text_file_named_jpg_gets_the_servers_reason(
    open_page: OpenPage, shop_url: str, tmp_path: Path, photo_file: Path
) -> None:
    page = open_page(shop_url)
    letter = tmp_path / "letter.jpg"
    letter.write_text("Dear shop, here is no photo.")
    page.set_input_files("#file", letter)
    notice = page.locator("#notice")
    expect(notice).to_contain_text("The file holds text, not an image; expected JPEG, PNG, WebP, BMP, GIF or TIFF.")
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
    expect(page.locator("#notice")).to_contain_text("“large.jpg” has 3.0 MB; at most 1.0 MB can be sent.")
    assert not [url for url in sent if "search" in url]


def test_an_empty_catalogue_says_how_to_fill_it(
    open_page: OpenPage, serve: Serve, tmp_path: Path, encoder_dir: Path
) -> None:
    home_path = tmp_path / "empty"
    page = open_page(str(serve(home_path).base_url))
    expect(page.locator("#notice")).to_contain_text("There is nothing to search yet")
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
        expect(page.locator("#notice")).to_contain_text("its log says why")
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
    expect(other.locator("#notice")).to_contain_text("This photo is no longer here")
    expect(other.get_by_role("button", name="Choose another photo")).to_be_visible()
    assert upload(other, photo_file) == shown(page)


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
    expect(dialog).to_contain_text("The API key is unknown or was revoked")
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


CONTRASTS = """() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const over = (top, below) => {
        const alpha = top.length > 3 ? top[3] : 1;
        return [0, 1, 2].map((i) => top[i] * alpha + below[i] * (1 - alpha));
    };
    const background = (element) => {
        const layers = [];
        for (let e = element; e; e = e.parentElement) layers.unshift(parse(getComputedStyle(e).backgroundColor));
        return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const luminance = (colour) => {
        const [r, g, b] = colour.map((v) => {
            const c = v / 255;
            return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!own || !element.checkVisibility() || element.closest(':disabled, option, .drop-cover')) continue;
        const below = background(element);
        const text = over(parse(getComputedStyle(element).color), below);
        const [light, dark] = [luminance(text), luminance(below)].sort((a, b) => b - a);
        found.push([(light + 0.05) / (dark + 0.05), element.className || element.id || element.tagName]);
    }
    return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_as_wcag_aa_asks(
    open_page: OpenPage, shop_url: str, photo_file: Path, scheme: str, tmp_path: Path
) -> None:
    page = open_page(shop_url, color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator("#lead")).to_contain_text(f"{ITEMS} items")
    measured = page.evaluate(CONTRASTS)
    upload(page, photo_file)
    measured += page.evaluate(CONTRASTS)
    letter = tmp_path / "letter.jpg"
    letter.write_text("no photo")
    page.set_input_files("#file", letter)
    expect(page.locator("#notice")).to_be_visible()
    measured += page.evaluate(CONTRASTS)
    assert len(measured) > 100
    assert [entry for entry in measured if entry[0] < 4.5] == []


def test_everything_has_a_name_for_screen_readers(open_page: OpenPage, shop_url: str, photo_file: Path) -> None:
    page = open_page(shop_url)
    upload(page, photo_file)
    nameless = page.evaluate("""() => [...document.querySelectorAll('img:not([alt]), button, select, input')]
        .filter((e) => e.checkVisibility())
        .filter((e) => e.tagName === 'IMG' || !(e.textContent.trim() || e.ariaLabel || e.labels?.length))
        .map((e) => e.outerHTML)""")
    assert nameless == []
    levels = page.locator("h1, h2, h3").evaluate_all(
        "all => all.filter((h) => h.checkVisibility()).map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] <= 2 and all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    expect(page.get_by_role("list", name="Similar items").get_by_role("listitem").first).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("most similar first")
    assert page.evaluate("document.documentElement.lang") == "en"


def test_results_say_how_probably_they_are_the_same_product(
    open_page: OpenPage, serve: Serve, home_copy: Path, photo_file: Path
) -> None:
    """The shop is too small to be calibrated: what a calibration would store is put there by hand."""
    page = open_page(str(serve(home_copy).base_url))
    upload(page, photo_file)
    expect(page.locator(".score-number")).to_have_count(PAGE_SIZE)
    expect(page.locator(".probability")).to_have_count(0)
    words = {0.924: "92 % the same product", 0.004: "under 1 % the same product", 0.997: "over 99 % the same product"}
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
