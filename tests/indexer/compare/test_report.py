"""The report of a real comparison, opened in a real Chromium without a network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from indexer.compare.comparison import compare_encoders
from indexer.compare.pictures import Pictures
from indexer.compare.plots import LEAST_POINTS, make_maps, pca
from indexer.compare.report import write_comparison
from indexer.compare.results import Comparison
from indexer.compare.tables import LEAGUE
from indexer.measures.disentanglement import Dci, Disentanglement, Mig
from indexer.measures.metrics import NO_INTERVAL
from indexer.swaps.sources import studio_set

pytestmark = pytest.mark.slow

ENCODERS = ("pixels", "robust-vae-small-64")
BACKGROUNDS = 3
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}
HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare_encoders(
        studio_set("shop", 12, per_item=BACKGROUNDS, side=64, factors=False), ENCODERS, replicates=100
    )


@pytest.fixture(scope="module")
def report(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_comparison(comparison, tmp_path_factory.mktemp("report") / "compare.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        message = "no Chromium on the PATH (apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=flags)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must not load any other file, and whose console must stay empty."""
    context = browser.new_context(viewport=WIDE)
    opened = context.new_page()
    heard: list[str] = []
    opened.on("console", lambda message: heard.append(message.text))
    opened.on("pageerror", lambda error: heard.append(str(error)))
    opened.on("request", lambda request: heard.append(request.url) if asks_outside(request.url) else None)
    yield opened
    context.close()
    assert heard == []


def asks_outside(url: str) -> bool:
    return not url.startswith(("data:", "blob:", "file:")) or (url.startswith("file:") and not url.endswith(".html"))


def table(page: Page, caption: str) -> list[list[str]]:
    """The rows of a table, the small print of its cells left out."""
    rows: list[list[str]] = page.locator(f"[aria-label='{caption}'] tr").evaluate_all(
        """rows => rows.map(row => [...row.cells].map(cell => {
            const plain = cell.cloneNode(true);
            plain.querySelectorAll("small, .unseen").forEach(small => small.remove());
            return plain.textContent.trim();
        }))"""
    )
    return rows


def test_every_plot_is_drawn_and_every_picture_loaded(page: Page, report: Path) -> None:
    page.goto(report.as_uri())
    plots = page.locator(".plot").evaluate_all(
        "plots => plots.map(plot => [plot.id, plot.querySelectorAll('.point').length])"
    )
    points = 12 * BACKGROUNDS
    assert dict(plots) == {"bars-swapped": 3 * 2, **{f"map-{number}": points for number in range(4)}}
    broken = page.locator("img").evaluate_all(
        "async images => { await Promise.all(images.map(i => i.decode().catch(() => 0)));"
        " return images.filter(i => !i.naturalWidth || !i.alt).length; }"
    )
    assert broken == 0
    assert page.locator("img").count() > 3 * 2 * BACKGROUNDS * 6
    assert report.stat().st_size < 6_000_000


def test_the_league_shows_the_figures_of_the_json(page: Page, report: Path, comparison: Comparison) -> None:
    page.goto(report.as_uri())
    document = json.loads(json.dumps(comparison.to_json()))["encoders"]
    head, *rows = table(page, "Measures of each encoder")
    assert head == ["encoder", *(column.name for column, _ in LEAGUE)]
    assert [row[0] for row in rows] == list(document)
    for name, *cells in rows:
        assert cells == [shown(figure) for figure in figures_of(document[name])]
    _, *differences = table(page, f"Differences to {comparison.first}")
    for name, *cells in differences:
        told = document[name]["difference_to_first"].values()
        assert cells == [f"{paired['value']:+.3f}" for paired in told]
    best = page.locator("[aria-label='Measures of each encoder'] tbody td:nth-child(3) strong")
    assert best.all_text_contents() == [shown(next(iter(document.values()))["swap"]["map@r"]["swapped"])]


def figures_of(found: dict[str, Any]) -> list[Any]:
    """In the order of the league's columns."""
    swap, gap = found["swap"], found["background_gap"]
    return [
        swap["map@r"]["clean"], swap["map@r"]["swapped"], swap["recall@1"]["clean"], swap["recall@1"]["swapped"],
        swap["map@r"]["retention"], found["shares"]["background"], found["shares"]["item"],
        found["probes"]["background"]["score"], found["lure_rate"], found["displacement"], found["overtaken"],
        found["attention_score"],
        gap and gap["gap"],
    ]  # fmt: skip


def shown(figure: dict[str, Any] | None) -> str:
    return "–" if figure is None or np.isnan(figure["value"]) else f"{figure['value']:.3f}"


def test_the_switch_colours_the_maps_by_item_or_background(page: Page, report: Path) -> None:
    page.goto(report.as_uri())

    def colours() -> list[int]:
        return page.locator(".map").evaluate_all(
            "maps => maps.map(map => new Set([...map.querySelectorAll('.point')].map(p => p.style.fill)).size)"
        )

    assert colours() == [12] * 4
    page.get_by_label("item", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("background", exact=True).is_checked()
    assert colours() == [BACKGROUNDS] * 4
    assert not page.locator("#key-item").is_visible()


def test_a_point_says_what_it_is(page: Page, report: Path, comparison: Comparison) -> None:
    page.goto(report.as_uri())
    page.locator("#map-0").scroll_into_view_if_needed()
    point = page.locator("#map-0 .point").first.bounding_box()
    assert point is not None
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    told = page.locator("#map-0 .hoverlayer .hovertext").first
    told.wait_for()
    assert any(name in (told.text_content() or "") for name in comparison.set.items)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_paper(page: Page, report: Path, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(report.as_uri())
    colours = page.evaluate(
        """() => [getComputedStyle(document.body).backgroundColor, ...[
            "body", ".soft", "td small", "thead th", ".verdict li",
            "#bars-swapped .xtick text", "#bars-swapped .ytick text",
        ].map(name => { const style = getComputedStyle(document.querySelector(name));
                        return name.startsWith("#") ? style.fill : style.color; })]"""
    )
    paper, *inks = [luminance(colour) for colour in colours]
    assert (paper < 0.05) == (scheme == "dark")
    for ink in inks:
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """Relative, of `rgb(r, g, b)` (WCAG 2.2)."""
    channels = [int(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_a_phone_scrolls_tables_not_the_page(page: Page, report: Path) -> None:
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.locator(".scroll").evaluate_all("all => all.every(one => one.tabIndex === 0 && one.ariaLabel)")


def test_what_is_unknown_is_a_dash_and_names_stay_text(page: Page, comparison: Comparison, tmp_path: Path) -> None:
    """No gap, no mask, no probe, vectors that are all the same, factors of one value, and an item with a bad name."""
    nan = float("nan")
    one = comparison.encoders["pixels"]
    factors = Disentanglement(Mig(nan, {"colour": nan}), Dci(nan, nan, nan, {"colour": nan}),
                              {"colour": one.probes["background"]._replace(score=NO_INTERVAL, chance=nan)})  # fmt: skip
    blind = replace(
        one, gap=None, attention=NO_INTERVAL, probes=factors.probes | {"background": factors.probes["colour"]},
        disentanglement=factors, vectors=np.ones_like(one.vectors[:3]), known_shares=one.shares, name=HOSTILE,
        displacements=np.full(3, nan), top=one.top[:3] % 3,
        swap=one.swap._replace(items=[HOSTILE, "b", "c"], clean={"map@r": np.ones(3)}, swapped={"map@r": np.ones(3)}),
    )  # fmt: skip
    names = [HOSTILE, "b", "c"]
    few = replace(comparison.set, items=names, products=names, backgrounds=[HOSTILE, "y", "z"])
    told = replace(comparison, set=few, encoders={HOSTILE: blind}, first=HOSTILE)
    page.goto(write_comparison(told, tmp_path / "few.html").as_uri())
    assert table(page, "Measures of each encoder")[1][-2:] == ["–", "–"]
    assert table(page, "Disentanglement")[1][1:] == ["–"] * 4
    text = page.locator("main").inner_text()
    assert "No UMAP: too few pictures." in text and HOSTILE in text
    assert "No decoder" in text and "No item loses MAP@R" in text and "No vector moves" in text
    assert page.locator("main script").count() == 0
    assert page.locator("#bars-known .point").count() == 3


def test_maps_hold_whole_items_and_tell_what_is_near(comparison: Comparison) -> None:
    maps = make_maps(comparison)
    assert len(maps) == 12 * BACKGROUNDS >= LEAST_POINTS
    assert sorted(maps.item_names) == sorted(comparison.set.items)
    assert np.bincount(maps.items).tolist() == [BACKGROUNDS] * 12
    for name in ENCODERS:
        assert [drawn.kind for drawn in maps.of[name]] == ["PCA", "UMAP"]
        assert all(drawn.points.shape == (len(maps), 2) for drawn in maps.of[name])
    by_background, by_item = (maps.of[name][0] for name in ENCODERS)
    assert by_background.same_background > by_item.same_background
    assert by_item.same_item > by_background.same_item


def test_pca_is_that_of_the_singular_vectors() -> None:
    z = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    u, s, _ = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
    points, note = pca(z)
    np.testing.assert_allclose(np.abs(points), np.abs(u[:, :2] * s[:2]), atol=1e-5)
    assert f"{(s[:2] ** 2).sum() / (s**2).sum():.0%}" in note
    assert pca(z[:, :1])[0].shape == (20, 2)


def test_pictures_are_held_once_and_marked_by_product(comparison: Comparison) -> None:
    pictures = Pictures(comparison)
    items = pictures.swap_items()
    held = len(json.loads(pictures.album.to_script()))
    assert held <= 3 * BACKGROUNDS + len(comparison.set)
    assert pictures.swap_items() == items and len(json.loads(pictures.album.to_script())) == held
    for item in items:
        row = comparison.set.items.index(item.name)
        for grid in item.grids:
            top = comparison.encoders[grid.encoder].top[row]
            right = [[comparison.set.products[place] == item.name for place in line] for line in top]
            assert [[shown.mark == "right" for shown in line.results] for line in grid.lines] == right


def test_the_worst_items_are_those_that_fall_and_move_most(comparison: Comparison) -> None:
    for failed in Pictures(comparison).failures():
        found = comparison.encoders[failed.encoder]
        fall = found.swap.clean["map@r"] - found.swap.swapped["map@r"]
        assert len(failed.fallen) == min(3, int((fall > 0).sum()))
        if failed.fallen:
            assert failed.fallen[0].name == found.swap.items[int(fall.argmax())]
        assert failed.moved[0].name == comparison.set.items[int(found.displacements.argmax())]
