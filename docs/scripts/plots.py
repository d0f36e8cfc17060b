"""Draw the plots of the studies from the files that the benchmarks write.

    python docs/scripts/plots.py receptive-field OUT/figures.json     (benchmarks/receptive_field.py)
    python docs/scripts/plots.py likelihoods OUT/mnist.json           (benchmarks/likelihoods.py)

Chromium must be on the PATH.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from playwright.sync_api import sync_playwright
from plotly.subplots import make_subplots

IMAGES = Path(__file__).parents[1] / "images"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync")
WIDTH, HEIGHT = 1100, 620
PAPERS = {"made": 88.04, "pixel-cnn": 81.30, "row-lstm": 80.54, "diagonal-bilstm": 79.20}


def receptive_field(figures: dict[str, Any]) -> go.Figure:
    """Nats in z, the bound, retrieval and the swap test by receptive field."""
    rows = {int(name.removeprefix("rf")): row for name, row in figures.items() if name.removeprefix("rf").isdecimal()}
    fields = sorted(rows)
    titles = ("nats in z", "bound on validation photos, nats", "category: precision@10", "same item: recall@1")
    figure = make_subplots(2, 2, subplot_titles=titles, vertical_spacing=0.16)
    places = {"kl": (1, 1), "elbo": (1, 2), "precision@10": (2, 1)}
    for name, (row, column) in places.items():
        figure.add_trace(_line(fields, [rows[field][name] for field in fields], name), row, column)
    for name in ("shop clean", "shop swapped", "real clean", "real swapped"):
        dash = "dot" if name.endswith("swapped") else "solid"
        figure.add_trace(_line(fields, [rows[field][name] for field in fields], name, dash), 2, 2)
    figure.update_xaxes(type="log", tickvals=fields, ticktext=[str(field) for field in fields])
    figure.update_xaxes(title_text="receptive field of the decoder, pixels", row=2)
    return figure


def likelihoods(figures: dict[str, Any]) -> go.Figure:
    """Training nats per digit by images seen, with the papers' figures."""
    figure = go.Figure()
    colours = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")
    for (name, row), colour in zip(figures.items(), colours, strict=False):
        seen, nats = zip(*row["curve"], strict=True)
        figure.add_trace(go.Scatter(x=seen, y=nats, name=name, mode="lines", line={"color": colour}))
        if name in PAPERS:
            figure.add_hline(y=PAPERS[name], line={"color": colour, "dash": "dot", "width": 1})
    figure.update_xaxes(type="log", title_text="images seen")
    figure.update_yaxes(range=[75, 140], title_text="nats per digit; dotted: the papers'")
    return figure


def _line(fields: list[int], values: list[Any], name: str, dash: str = "solid") -> go.Scatter:
    """Values by receptive field, with intervals if available."""
    means = [value["value"] if isinstance(value, dict) else value for value in values]
    bars = None
    if isinstance(values[0], dict):
        bars = {
            "array": [value["ci"][1] - value["value"] for value in values],
            "arrayminus": [value["value"] - value["ci"][0] for value in values],
            "thickness": 1,
        }
    return go.Scatter(x=fields, y=means, name=name, mode="lines+markers", line={"dash": dash}, error_y=bars)


def save(figure: go.Figure, path: Path) -> None:
    figure.update_layout(
        template="plotly_white", width=WIDTH, height=HEIGHT, margin={"t": 40, "l": 60, "r": 20, "b": 50}
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_content(figure.to_html(include_plotlyjs=True, config={"displayModeBar": False}))
        page.wait_for_selector(".main-svg")
        page.screenshot(path=str(path))
        browser.close()


PLOTS = {"receptive-field": receptive_field, "likelihoods": likelihoods}


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in PLOTS:
        sys.exit(__doc__)
    save(PLOTS[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text())), IMAGES / f"{sys.argv[1]}.png")
