"""A comparison of encoders as a single HTML file that works offline: verdict, figures, maps and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from indexer.compare.pictures import Pictures, placed_pictures
from indexer.compare.plots import GREY, OF_FACTOR, make_maps, share_bars
from indexer.compare.results import Comparison, describe
from indexer.compare.tables import against_first, factors, league, neighbours, probes, shares
from indexer.compare.verdict import cautions, findings, verdict
from indexer.evaluate.placement_tables import placement_tables
from indexer.reports.html import write_html
from indexer.reports.tables import Table


class Split(NamedTuple):
    """A decomposition of the vectors' variance: its title, bars with their colours, and table."""

    name: str
    words: str
    bars: str
    key: list[tuple[str, str]]
    table: Table


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The verdict in words, and all measures."""
    return {"verdict": verdict(comparison), **comparison.to_json()}


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the report; it contains the plotting library and all pictures, and loads nothing from elsewhere."""
    pictures, maps = Pictures(comparison), make_maps(comparison)
    parts = {
        "swap_items": pictures.swap_items(),
        "failures": pictures.failures(),
        "decoded": pictures.decoded(),
        "placed": placed_pictures(comparison, pictures.album),
    }
    return write_html(
        path,
        "compare_report.html.jinja",
        comparison=comparison,
        described=describe(comparison.set),
        findings=[_unbroken(said) for said in findings(comparison)],
        cautions=[_unbroken(said) for said in cautions(comparison)],
        league=league(comparison),
        against_first=against_first(comparison),
        probes=probes(comparison),
        splits=_splits(comparison),
        factors=factors(comparison),
        maps=maps,
        map_table=neighbours(maps),
        placements=placement_tables(
            {name: found.placement for name, found in comparison.encoders.items()}, comparison.first
        ),
        album=pictures.album.to_script(),
        **parts,
    )


def _splits(comparison: Comparison) -> list[Split]:
    """The decompositions of the swapped queries, and of the synthetic shop's pictures with known factors."""
    encoders = list(comparison.encoders.values())
    told = [
        ("swapped", "queries on every background", lambda found: found.shares),
        ("known", "drawn items in every combination of background, pose and light", lambda found: found.known_shares),
    ]
    splits = []
    for name, words, of in told:
        table = shares(comparison, f"Variance shares, {words}", of)
        if table is not None:
            key = [(column.name, OF_FACTOR.get(column.name, GREY)) for column in table.columns]
            splits.append(Split(name, words, share_bars(encoders, of), key, table))
    return splits


def _unbroken(said: str) -> str:
    """With non-breaking spaces between numbers and signs."""
    for sign in (" %", "p = ", "p < "):
        said = said.replace(sign, sign.replace(" ", "\u00a0"))
    return said
