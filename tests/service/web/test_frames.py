"""Frames on the query photo, in a real Chromium against a real server."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import expect

from service.app import create_app
from service.settings import Settings
from tests import finding
from tests.service.conftest import Serve, running
from tests.service.web.conftest import (
    SEARCH,
    OpenPage,
    Recorder,
    drag,
    expected,
    in_url,
    shown,
    upload,
    wait_for_answers,
)


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
    expect(page.locator("#items-note")).to_have_text("3 items were found; choose one to search with it only.")
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
