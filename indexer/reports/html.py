"""Helpers of the HTML reports: templates, plots as JSON, colours and inline pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.extras import extras
from training.files import publish_file

PALETTE = ("#0b6e99", "#d9730d", "#448361", "#9065b0", "#cb912f", "#c14c8a", "#787774", "#d44c47")
DASH = "–"
JPEG_QUALITY = 72


def check_packages() -> None:
    """Check that a report can be written, before the work that it is about.

    Raises:
        MissingExtraError: a package that draws the report is not installed.
    """
    with extras("an HTML report"):
        import plotly  # noqa: F401


def write_html(path: Path, template: str, **parts: Any) -> Path:
    """Render and publish a report; it contains the plotting library and all pictures, and loads nothing else."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("indexer.reports", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    html = environment.get_template(template).render(plotlyjs=get_plotlyjs(), **parts)
    return publish_file(path, html.encode())


def plot_json(figure: Any) -> str:
    """A Plotly figure as JSON with a transparent background; the page sets the colours of text and grid."""
    figure.update_layout(
        template="none",
        margin={"l": 56, "r": 40, "t": 12, "b": 84},
        legend={"orientation": "h", "y": 1.12},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif"},
    )
    return script_safe(figure.to_json())


def script_safe(json_text: str) -> str:
    """JSON that is safe inside a script element, which `</` would end."""
    return json_text.replace("<", "\\u003c")


def colours(count: int) -> list[str]:
    return [PALETTE[place % len(PALETTE)] for place in range(count)]


def inline_jpeg(image: Image.Image, side: int) -> str:
    """An image as a data URL; its longer side is at most `side` pixels."""
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def number(value: float, *, signed: bool = False) -> str:
    """A number with three decimals; a dash for NaN."""
    if np.isnan(value):
        return DASH
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def p_value(p: float) -> str:
    if np.isnan(p):
        return f"p {DASH}"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
