"""Searching by drawing on the page: pointer events, the sheet, and the model's redrawing, in a real Chromium."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from service.app import create_app
from service.settings import Settings
from tests.drawings import draw_shape, svg_of
from tests.service.conftest import running
from tests.service.web.conftest import OpenPage, has_no_sideways_scroll, in_url

Point = tuple[float, float]
CIRCLE = [(0.5 + 0.35 * math.cos(turn / 6 * math.pi), 0.5 + 0.35 * math.sin(turn / 6 * math.pi)) for turn in range(13)]
CROSS = [[(0.15, 0.15), (0.85, 0.85)], [(0.85, 0.15), (0.15, 0.85)]]


@pytest.fixture(scope="module")
def drawn_url(drawn_home: Path) -> Iterator[str]:
    with running(create_app(Settings(home=drawn_home, query_log=0))) as url:
        while httpx.get(f"{url}/readyz").status_code != 200:
            pass
        yield f"{url}/?collection=shapes"


def place(page: Page, point: Point) -> Point:
    expect(page.locator("#canvas")).to_be_visible()
    sheet = page.locator("#canvas").bounding_box()
    assert sheet
    return sheet["x"] + point[0] * sheet["width"], sheet["y"] + point[1] * sheet["height"]


def draw(page: Page, points: list[Point]) -> None:
    """One stroke with the mouse."""
    page.mouse.move(*place(page, points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*place(page, point), steps=3)
    page.mouse.up()


def expect_kind(page: Page, kind: str) -> None:
    """Until the first answers are of this kind."""
    expect(page.locator("#status")).to_contain_text("most similar first")
    cards = page.locator(".card")
    for number in range(5):
        expect(cards.nth(number)).to_have_attribute("data-item-id", re.compile(f"^{kind}/"))


def ink(page: Page) -> int:
    """The number of pixels of the sheet that are drawn on."""
    count: int = page.locator("#canvas").evaluate(
        """canvas => {
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            return pixels.filter((value, place) => place % 4 === 3 && value > 128).length;
        }"""
    )
    return count


def test_one_draws_and_sees_matches_and_the_redrawing(open_page: OpenPage, drawn_url: str) -> None:
    page = open_page(drawn_url)
    expect(page.locator("#status")).to_contain_text("Draw on the sheet")
    expect(page.locator("#start")).to_be_hidden()
    expect(page.locator("#undo")).to_be_disabled()
    draw(page, CIRCLE)
    expect_kind(page, "circle")
    assert ink(page) > 500
    expect(page.locator("#redrawn")).to_be_visible()
    lines = page.locator("#redrawn-strokes polyline")
    expect(lines).to_have_count(1)
    points = [tuple(map(float, each.split(","))) for each in (lines.get_attribute("points") or "").split()]
    assert len(points) > 8, "the model redraws a circle"
    expect(page).to_have_title("Similar to your drawing – Nitamono")


def test_every_stroke_searches_again_and_undo_takes_it_back(open_page: OpenPage, drawn_url: str) -> None:
    page = open_page(drawn_url)
    draw(page, CROSS[0])
    expect(page.locator(".card")).not_to_have_count(0)
    first, one = in_url(page)["photo"], ink(page)
    draw(page, CROSS[1])
    expect_kind(page, "cross")
    assert in_url(page)["photo"] != first and ink(page) > 1.5 * one
    page.keyboard.press("Control+z")
    expect(page.locator("#canvas")).to_be_focused()
    page.wait_for_timeout(400)
    assert abs(ink(page) - one) < 5
    page.keyboard.press("Control+Shift+z")
    expect_kind(page, "cross")
    page.locator("#erase").click()
    expect(page.locator("#status")).to_contain_text("Draw on the sheet")
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#redrawn")).to_be_hidden()
    assert ink(page) == 0 and "photo" not in in_url(page)


def test_a_drawing_survives_a_reload_and_the_history(open_page: OpenPage, drawn_url: str) -> None:
    page = open_page(drawn_url)
    for stroke in CROSS:
        draw(page, stroke)
    expect_kind(page, "cross")
    drawn = ink(page)
    page.reload()
    expect_kind(page, "cross")
    assert abs(ink(page) - drawn) < 5
    page.locator(".card button").first.click()  # more like this
    expect(page.locator("#panel")).to_be_visible()
    expect(page.locator("#sketch")).to_be_hidden()
    expect(page.locator("#redrawn")).to_be_hidden()
    page.go_back()
    expect(page.locator("#sketch")).to_be_visible()
    expect_kind(page, "cross")
    page.go_back()  # all strokes are one entry
    expect(page.locator("#status")).to_contain_text("Draw on the sheet")
    assert ink(page) == 0


def test_a_finger_draws_on_a_phone(open_page: OpenPage, drawn_url: str) -> None:
    page = open_page(drawn_url, viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    expect(page.locator("#sketch")).to_be_visible()
    assert has_no_sideways_scroll(page)
    touch = page.context.new_cdp_session(page)
    before = page.evaluate("scrollY")
    for number, point in enumerate(CIRCLE):
        x, y = place(page, point)
        kind = "touchStart" if number == 0 else "touchMove"
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect_kind(page, "circle")
    assert page.evaluate("scrollY") == before, "the page scrolled under the finger"


def test_an_svg_file_is_searched_with(open_page: OpenPage, drawn_url: str, tmp_path: Path) -> None:
    path = tmp_path / "square.svg"
    path.write_bytes(svg_of(draw_shape(1003)))
    page = open_page(drawn_url)
    page.set_input_files("#svg", path)
    expect_kind(page, "square")
    expect(page.locator("#panel")).to_be_visible()
    expect(page.locator("#query-title")).to_have_text("Your drawing")
    expect(page.locator("#crop")).to_be_hidden()
    expect(page.locator("#redrawn")).to_be_visible()


def test_a_file_without_strokes_is_refused_in_words(open_page: OpenPage, drawn_url: str, tmp_path: Path) -> None:
    path = tmp_path / "words.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg"><text>words</text></svg>')
    page = open_page(drawn_url)
    page.set_input_files("#svg", path)
    expect(page.locator("#notice-text")).to_contain_text("nothing to draw")
    page.locator("#notice-actions button").first.click()
    expect(page.locator("#sketch")).to_be_visible()
    expect(page.locator("#notice")).to_be_hidden()


def test_a_collection_of_photos_has_no_sheet(open_page: OpenPage, drawn_url: str) -> None:
    page = open_page(drawn_url)
    expect(page.locator("#sketch")).to_be_visible()
    page.select_option("#collection", "shop")
    expect(page.locator("#dropzone")).to_be_visible()
    expect(page.locator("#sketch")).to_be_hidden()
    page.select_option("#collection", "shapes")
    expect(page.locator("#sketch")).to_be_visible()
    expect(page.locator("#dropzone")).to_be_hidden()
