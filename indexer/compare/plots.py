"""The plots of a comparison: bars of the variance shares, and two-dimensional maps of the vectors."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.measures.variance import INTERACTION
from indexer.reports.html import PALETTE, plot_json, script_safe
from indexer.vectors import Floats

if TYPE_CHECKING:
    from indexer.compare.results import Comparison, EncoderComparison
    from indexer.measures.metrics import Interval

POINTS = 600  # maximum number of points in a map; UMAP takes two seconds for them
COLOURED = 12  # items with a colour of their own
LEAST_POINTS = 12  # minimum number of points for UMAP
NEIGHBOURS = 15
LABEL = 24  # maximum length of a label; names may be paths
GREY = "#8d939b"
COLOURS = (*PALETTE[:6], *PALETTE[7:], "#2a9d8f", "#8b5e34", "#4b5fd1", "#94a800", "#e58fb8")
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star", "x", "triangle-down", "pentagon", "hexagram")
GLYPHS = ("●", "■", "◆", "✚", "▲", "★", "✖", "▼", "⬟", "✶")  # the same symbols as text
OF_FACTOR = {
    "item": "#0b6e99", "background": "#b85c00", "pose": "#3f7a5a", "light": "#7d55a3", INTERACTION: "#6b6a67",
}  # fmt: skip

Points = NDArray[np.float64]


def share_bars(encoders: Sequence[EncoderComparison], of: Callable[[EncoderComparison], Mapping[str, Interval]]) -> str:
    """Stacked bars of each encoder, the first one on top, as Plotly JSON."""
    import plotly.graph_objects as go

    figure = go.Figure()
    shown = [each for each in encoders if of(each)]
    for factor in of(shown[0]):
        figure.add_bar(
            name=factor,
            orientation="h",
            y=list(range(len(shown))),
            customdata=[each.name for each in shown],
            x=[of(each)[factor].value for each in shown],
            marker_color=OF_FACTOR.get(factor, GREY),
            texttemplate="%{x:.0%}",
            textposition="inside",
            insidetextanchor="middle",
            insidetextfont={"color": "#fff"},
            textangle=0,
            hovertemplate="%{customdata}<br>" + factor + " %{x:.1%}<extra></extra>",
        )
    figure.update_layout(
        barmode="stack",
        bargap=0.25,
        showlegend=False,  # the page has one that wraps on a phone
        dragmode=False,  # a finger on the plot scrolls the page
        uniformtext={"mode": "hide", "minsize": 10},
        xaxis={"range": [0, 1], "tickformat": ".0%", "title": {"text": "share of the variance"}},
        yaxis={
            "autorange": "reversed",
            "automargin": True,
            "tickvals": list(range(len(shown))),
            "ticktext": [_shortened(each.name) for each in shown],
        },
    )
    return plot_json(figure)


def _shortened(name: str) -> str:
    return name if len(name) <= LABEL else "…" + name[1 - LABEL :]


class Map(NamedTuple):
    """A 2-D map of an encoder's vectors.

    `same_item` and `same_background` are the shares of points whose nearest other point has the same item, and the same
    background.
    """

    encoder: str
    kind: str
    points: Points
    note: str
    same_item: float
    same_background: float


@dataclass(frozen=True)
class Maps:
    """Maps of the same pictures for every encoder.

    Args:
        items, backgrounds: `(N,)` indices of the item and background of each point.
    """

    items: NDArray[np.intp]
    backgrounds: NDArray[np.intp]
    item_names: list[str]
    background_names: list[str]
    of: dict[str, list[Map]]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def coloured(self) -> int:
        return COLOURED

    @property
    def item_colours(self) -> list[str]:
        """The colour of each item; grey after the first `COLOURED` items."""
        return [COLOURS[place] if place < COLOURED else GREY for place in range(len(self.item_names))]

    @property
    def background_colours(self) -> list[str]:
        return [COLOURS[place % len(COLOURS)] for place in range(len(self.background_names))]

    @property
    def symbols(self) -> list[str]:
        """The symbol of each background, independent of the colours."""
        return [SYMBOLS[place % len(SYMBOLS)] for place in range(len(self.background_names))]

    @property
    def glyphs(self) -> list[str]:
        return [GLYPHS[place % len(GLYPHS)] for place in range(len(self.background_names))]

    def to_script(self) -> str:
        """The data of the page as JSON; grey items come first, so that coloured points are drawn over them."""
        order = np.argsort(-self.items, kind="stable")
        return script_safe(
            json.dumps(
                {
                    "items": self.items[order].tolist(),
                    "backgrounds": self.backgrounds[order].tolist(),
                    "itemNames": self.item_names,
                    "backgroundNames": self.background_names,
                    "colours": {"item": self.item_colours, "background": self.background_colours},
                    "symbols": self.symbols,
                    "points": [
                        [name, each.kind, each.points[order].round(4).T.tolist()]
                        for name, maps in self.of.items()
                        for each in maps
                    ],
                }
            )
        )


def make_maps(comparison: Comparison) -> Maps:
    """PCA and UMAP maps of every encoder's vectors, for as many complete items as fit into 600 points."""
    made = comparison.set
    per_item = len(made.backgrounds)
    count = min(len(made), max(1, POINTS // per_item))
    rows = np.random.default_rng(comparison.seed).permutation(len(made))[:count]
    items, backgrounds = np.repeat(np.arange(count), per_item), np.tile(np.arange(per_item), count)
    of = {}
    for name, found in comparison.encoders.items():
        vectors = found.vectors[rows].reshape(count * per_item, -1)
        drawn = {"PCA": pca(vectors)}
        if len(vectors) >= LEAST_POINTS:
            drawn["UMAP"] = (umap(vectors, found.metric, comparison.seed), "")
        of[name] = [
            Map(name, kind, points, note, *_nearest(points, items, backgrounds))
            for kind, (points, note) in drawn.items()
        ]
    return Maps(items, backgrounds, [made.items[row] for row in rows], list(made.backgrounds), of)


def pca(vectors: Floats) -> tuple[Points, str]:
    """The first two principal components, and a note on their share of the variance."""
    from sklearn.decomposition import PCA

    z = vectors.astype(np.float64)
    centred = z - z.mean(axis=0)
    if not np.square(centred).sum() > 0:
        return np.zeros((len(z), 2)), "all vectors are equal"
    model = PCA(min(2, *z.shape), random_state=0)
    points = model.fit_transform(z)
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    return points, f"two components with {model.explained_variance_ratio_.sum():.0%} of the variance"


def umap(vectors: Floats, metric: str, seed: int) -> Points:
    """UMAP projection `(N, 2)`; distances between distant groups are not meaningful."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        # Good encoders give well separated groups, and thus a disconnected neighbour graph.
        warnings.filterwarnings("ignore", "Graph is not fully connected", UserWarning)
        from umap import UMAP

        model = UMAP(
            n_neighbors=min(NEIGHBOURS, len(vectors) - 1),
            metric="cosine" if metric == "cosine" else "euclidean",
            random_state=seed,
            n_jobs=1,  # required for a fixed seed
        )
        points: Points = np.asarray(model.fit_transform(vectors), np.float64)
    return points


def _nearest(points: Points, items: NDArray[np.intp], backgrounds: NDArray[np.intp]) -> tuple[float, float]:
    """Shares of points whose nearest other point has the same item, and the same background."""
    from scipy.spatial.distance import cdist

    distances = cdist(points, points)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(axis=1)
    return float((items[nearest] == items).mean()), float((backgrounds[nearest] == backgrounds).mean())
