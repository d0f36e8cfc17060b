"""Placement tests as text, and as tables of a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from indexer.measures.metrics import Interval
from indexer.reports.html import p_value
from indexer.reports.tables import Column, Row, Table, cell
from indexer.swaps.placement import GROUNDS, KINDS, SCALES, Ground, PlacementFigures, PlacementTest

WORDS: Mapping[Ground, str] = {"white": "on white", "other": "on other backgrounds"}
MAP_AT_R = "map@r"
Figure = Callable[[PlacementFigures], Interval]


def placement_lines(tests: Mapping[str, PlacementTest | None]) -> list[str]:
    """The headline figures of each encoder as text; empty if there are no placement tests."""
    known = {name: test for name, test in tests.items() if test is not None}
    if not known:
        return []
    first = next(iter(known.values()))
    metric = first_metric(first)
    width = max(map(len, known))
    head = [f"{what}, {ground}" for ground in GROUNDS for what in ("middle", "anywhere", "retention")]
    lines = [
        f"{metric} of {len(first.queries)} items by scale and place (anywhere: item scales "
        f"{', '.join(f'{scale:g}' for scale in SCALES)} relative to the frame's side)",
        " ".join([" " * width, *(f"{name:>20s}" for name in head)]),
    ]
    for name, test in known.items():
        cells = [interval for ground in GROUNDS for interval in test.figures[ground][metric][:3]]
        lines.append(" ".join([name.ljust(width), *(f"{each.to_text():>20s}" for each in cells)]))
    return lines


def first_metric(test: PlacementTest) -> str:
    return next(iter(test.figures[GROUNDS[0]]))


def placement_tables(tests: Mapping[str, PlacementTest | None], first: str) -> list[tuple[str, Table]]:
    """Headings and tables: both grounds, then differences to the first encoder; empty without placement tests."""
    known = {name: test for name, test in tests.items() if test is not None}
    if not known:
        return []
    metric = first_metric(next(iter(known.values())))
    tables = [
        (WORDS[ground].capitalize(), _table(f"{metric} by scale and place, {WORDS[ground]}", ground, metric, known))
        for ground in GROUNDS
    ]
    differences = {name: test.versus for name, test in known.items() if test.versus}
    if differences:
        columns = [Column(name.replace(MAP_AT_R, "MAP@R")) for name in next(iter(differences.values()))]
        rows = [
            Row(name, "", [cell(each.difference, signed=True, note=p_value(each.p)) for each in versus.values()])
            for name, versus in differences.items()
        ]
        caption = f"Differences to {first} by placement"
        tables.append((f"Differences to {first}, by scale and place", Table(caption, columns, rows)))
    return tables


def _table(caption: str, ground: Ground, metric: str, tests: Mapping[str, PlacementTest]) -> Table:
    heads: list[tuple[Column, Figure]] = [
        (Column("middle", f"{metric} of centred items whose longer side equals the frame's side"), _middle),
        (Column("anywhere", f"{metric} of items at scales .7, .5 and .3 at random places"), _anywhere),
        (Column("retention", "anywhere / middle; 1 means no loss"), _retention),
        *((Column(f"scale {scale:g}", "at random places"), _at_scale(f"{scale:g}")) for scale in SCALES),
        *((Column(kind, "at scales .7, .5 and .3"), _at_place(kind)) for kind in KINDS),
    ]
    rows = []
    for name, test in tests.items():
        cells = [cell(figure(test.figures[ground][metric])) for _, figure in heads]
        of_map = test.figures[ground].get(MAP_AT_R)
        if of_map is not None:
            cells.append(cell(of_map.anywhere))
        rows.append(Row(name, "", cells))
    columns = [column for column, _ in heads]
    if len(rows[0].cells) > len(columns):
        columns.append(Column("MAP@R anywhere"))
    return Table(caption, columns, rows)


def _middle(figures: PlacementFigures) -> Interval:
    return figures.middle


def _anywhere(figures: PlacementFigures) -> Interval:
    return figures.anywhere


def _retention(figures: PlacementFigures) -> Interval:
    return figures.retention


def _at_scale(scale: str) -> Figure:
    return lambda figures: figures.by_scale[scale]


def _at_place(kind: str) -> Figure:
    return lambda figures: figures.by_place[kind]
