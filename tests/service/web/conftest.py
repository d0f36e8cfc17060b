"""A browser for the tests of the page, and what they do with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
