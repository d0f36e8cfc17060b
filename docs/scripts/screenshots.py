"""Takes the pictures of the page, and of a comparison's report, in `docs/images`.

    python docs/scripts/screenshots.py --url http://127.0.0.1:8080 --photo PHOTO
    python docs/scripts/screenshots.py --report REPORT.html

For the first a server of an indexed catalogue must be running (`make demo` starts one), the second takes what
`nitamono compare --report` has written; Chromium must be on the PATH.
"""

from __future__ import annotations

import argparse
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, sync_playwright

IMAGES = Path(__file__).parents[1] / "images"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync")
MAX_BYTES = 400_000


@dataclass(frozen=True)
class Shot:
    """One picture: its file, and the window it is taken of."""

    name: str
    width: int
    height: int
    scale: float = 1.0
    is_phone: bool = False


SHOTS = (Shot("page-desktop.png", 1280, 832), Shot("page-phone.png", 375, 812, scale=1.6, is_phone=True))
REPORT_SHOTS = (
    (Shot("compare-verdict.png", 1280, 1120), "h1"),
    (Shot("compare-maps.png", 1280, 1120), "#maps"),
    (Shot("compare-swaps.png", 1280, 1000), "#swaps"),
    (Shot("compare-phone.png", 375, 812, scale=1.6, is_phone=True), "#swaps"),
)  # each with what is at its top


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--photo", type=Path, help="photo to search with")
    parser.add_argument("--report", type=Path, help="report of a comparison of encoders")
    parser.add_argument("--out", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    if arguments.photo is None and arguments.report is None:
        parser.error("name a --photo, a --report or both")
    arguments.out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        parser.error("no Chromium on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for shot in SHOTS if arguments.photo else ():
            (arguments.out / shot.name).write_bytes(compact(take(browser, shot, arguments.url, arguments.photo)))
        for shot, top in REPORT_SHOTS if arguments.report else ():
            (arguments.out / shot.name).write_bytes(compact(take_report(browser, shot, arguments.report, top)))
        browser.close()


def open_window(browser: Browser, shot: Shot) -> BrowserContext:
    return browser.new_context(
        viewport={"width": shot.width, "height": shot.height},
        device_scale_factor=shot.scale,
        is_mobile=shot.is_phone,
        has_touch=shot.is_phone,
    )


def take(browser: Browser, shot: Shot, url: str, photo: Path) -> bytes:
    """The page with answers to a part of the photo, as PNG."""
    context = open_window(browser, shot)
    page = context.new_page()
    page.goto(url)
    page.set_input_files("#file", photo)
    page.wait_for_selector(".card:not(.skeleton)")
    page.goto(page.url + "&region=0.120,0.060,0.760,0.880")
    page.wait_for_selector(".card:not(.skeleton)")
    page.wait_for_load_state("networkidle")
    png = page.screenshot(animations="disabled")
    context.close()
    return png


def take_report(browser: Browser, shot: Shot, report: Path, top: str) -> bytes:
    """A window of a report from the given element on, as PNG."""
    context = open_window(browser, shot)
    page = context.new_page()
    page.goto(report.resolve().as_uri())
    page.wait_for_function("[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.point'))")
    page.locator(top).evaluate("element => element.scrollIntoView()")
    png = page.screenshot(animations="disabled")
    context.close()
    return png


def compact(png: bytes) -> bytes:
    """The same picture in as many colours as fit into `MAX_BYTES`."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 192, 128, 96, 64, 48):
        out = io.BytesIO()
        quantized = image.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        quantized.save(out, "PNG", optimize=True)
        if out.tell() <= MAX_BYTES:
            break
    return out.getvalue()


if __name__ == "__main__":
    main()
