"""An evaluation as a single HTML file that works offline: figures with intervals, plots, pictures of results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from indexer.evaluate.placement_tables import placement_tables
from indexer.evaluate.results import EncoderResult, Evaluation
from indexer.reports.html import colours, inline_jpeg, plot_json, write_html
from training.data.decode import decode_image
from training.data.sources import SourceImage
from training.errors import ImageError

THUMBNAIL = 112  # longer side in pixels
QUERIES_SHOWN = 5  # number of best and of worst queries of each encoder


class Picture(NamedTuple):
    """A photo in the report: inline JPEG, item, category, and whether it is relevant (None for the query)."""

    source: str
    item_id: str
    category: str
    relevant: bool | None


class Example(NamedTuple):
    """A query with its first results."""

    figure: float
    query: Picture
    results: list[Picture]


class Section(NamedTuple):
    """The pictures of one encoder."""

    result: EncoderResult
    best: list[Example]
    worst: list[Example]


def write_report(evaluation: Evaluation, path: Path) -> Path:
    """Write the report; it contains the plotting library and all pictures, and loads nothing from elsewhere."""
    thumbnails = _Thumbnails()
    return write_html(
        path,
        "report.html.jinja",
        evaluation=evaluation,
        headline=evaluation.headline,
        bars=_bars(evaluation),
        curves=_curves(evaluation),
        categories=_category_table(evaluation),
        placements=placement_tables(
            {name: result.placement for name, result in evaluation.encoders.items()}, next(iter(evaluation.encoders))
        ),
        placed=[],
        sections=[_section(evaluation, result, thumbnails) for result in evaluation.encoders.values()],
    )


def _bars(evaluation: Evaluation) -> str:
    """Grouped bars of the headline metrics with their intervals, as Plotly's JSON."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for colour, result in zip(colours(len(evaluation.encoders)), evaluation.encoders.values(), strict=True):
        cells = [result.intervals[name] for name in evaluation.headline]
        figure.add_bar(
            name=result.name,
            x=list(evaluation.headline),
            y=[cell.value for cell in cells],
            marker_color=colour,
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [cell.high - cell.value for cell in cells],
                "arrayminus": [cell.value - cell.low for cell in cells],
                "thickness": 1,
            },
        )
    figure.update_layout(barmode="group", yaxis_range=[0, 1], yaxis_title="value with 95 % interval")
    return plot_json(figure)


def _curves(evaluation: Evaluation) -> str:
    """Mean precision among the first k results, as Plotly's JSON."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for colour, result in zip(colours(len(evaluation.encoders)), evaluation.encoders.values(), strict=True):
        ranks = list(range(1, len(result.curve) + 1))
        figure.add_scatter(name=result.name, x=ranks, y=result.curve.tolist(), mode="lines", line_color=colour)
    figure.update_layout(xaxis_title="k", yaxis_title="precision@k", yaxis_range=[0, 1])
    return plot_json(figure)


def _category_table(evaluation: Evaluation) -> list[tuple[str, int, list[float]]]:
    """Of each category the number of queries and each encoder's MAP."""
    results = list(evaluation.encoders.values())
    table = []
    for category, figures in results[0].per_category.items():
        table.append((category, int(figures["queries"]), [r.per_category[category]["map"] for r in results]))
    return table


def _section(evaluation: Evaluation, result: EncoderResult, thumbnails: _Thumbnails) -> Section:
    """The queries with the highest and the lowest average precision."""
    figures = result.per_query["map"]
    known = np.flatnonzero(~np.isnan(figures))
    ordered = known[np.argsort(figures[known], kind="stable")]
    count = min(QUERIES_SHOWN, len(ordered) // 2 or len(ordered))

    def examples(rows: Sequence[int]) -> list[Example]:
        return [
            Example(
                float(figures[row]),
                thumbnails.of(evaluation.queries[row], None),
                [
                    thumbnails.of(evaluation.gallery[place], bool(hit))
                    for place, hit in zip(result.top[row], result.hits[row], strict=True)
                ],
            )
            for row in rows
        ]

    return Section(result, examples(ordered[::-1][:count].tolist()), examples(ordered[:count].tolist()))


class _Thumbnails:
    """Inline JPEGs, created once for each file."""

    def __init__(self) -> None:
        self._made: dict[Path, str] = {}

    def of(self, image: SourceImage, relevant: bool | None) -> Picture:
        if image.path not in self._made:
            self._made[image.path] = _thumbnail(image.path)
        return Picture(self._made[image.path], image.item_id, image.category or "", relevant)


def _thumbnail(path: Path) -> str:
    try:
        image = Image.fromarray(decode_image(path.read_bytes(), at_least=THUMBNAIL).pixels)
    except (OSError, ImageError):  # the file has become unreadable since it was embedded: show a grey square
        image = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "#999")
    return inline_jpeg(image, THUMBNAIL)
