"""Keyboard, phones, contrast and screen readers, in a real Chromium against a real server."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.service.conftest import ITEMS
from tests.service.web.conftest import (
    OpenPage,
    expected,
    has_no_sideways_scroll,
    in_url,
    shown,
    similar,
    upload,
    wait_for_answers,
)


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
