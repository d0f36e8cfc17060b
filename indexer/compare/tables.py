"""The tables of a comparison: figures with intervals, the meaning of each column, and its best value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from indexer.measures.disentanglement import Probe
from indexer.measures.metrics import NO_INTERVAL, Interval
from indexer.measures.robustness import MAP_AT_R
from indexer.reports.html import number, p_value
from indexer.reports.tables import Better, Cell, Column, Row, Table, cell

if TYPE_CHECKING:
    from indexer.compare.plots import Maps
    from indexer.compare.results import Comparison, EncoderComparison

NO_PROBE = Probe(NO_INTERVAL, float("nan"), "accuracy")


LEAGUE: tuple[tuple[Column, Callable[[EncoderComparison], Interval]], ...] = (
    (
        Column("clean MAP@R", "retrieval of photos of the same item with the original queries", "high"),
        lambda found: found.swap.figures[MAP_AT_R].clean,
    ),
    (
        Column("swapped MAP@R", "the same with the queries on other backgrounds", "high"),
        lambda found: found.swap.figures[MAP_AT_R].swapped,
    ),
    (
        Column("clean recall@1", "share of original queries whose first result shows the item", "high"),
        lambda found: found.swap.figures["recall@1"].clean,
    ),
    (
        Column("swapped recall@1", "the same with the queries on other backgrounds", "high"),
        lambda found: found.swap.figures["recall@1"].swapped,
    ),
    (
        Column("retention", "swapped MAP@R / clean MAP@R; 1 means no loss"),
        lambda found: found.swap.figures[MAP_AT_R].retention,
    ),
    (
        Column("background share", "variance component of the background, as a share of the total", "low"),
        lambda found: found.shares["background"],
    ),
    (
        Column("item share", "variance component of the item, as a share of the total", "high"),
        lambda found: found.shares["item"],
    ),
    (
        Column(
            "background probe",
            "accuracy of a linear model that predicts the background from the vector; close to chance is good",
        ),
        lambda found: found.probes.get("background", NO_PROBE).score,
    ),
    (
        Column("lure rate", "wrong neighbours with the query's background, relative to chance", "low"),
        lambda found: found.lure,
    ),
    (
        Column(
            "displacement",
            "shift of an item's vector by a new background / distance to the nearest other product on any background",
            "low",
        ),
        lambda found: found.displacement,
    ),
    (
        Column(
            "overtaken",
            "how often another product, on any background, is nearer than the same item on another background",
            "low",
        ),
        lambda found: found.overtaken,
    ),
    (
        Column("attention score", "0: item and background matter equally; 1: only the item matters", "high"),
        lambda found: found.attention,
    ),
    (
        Column(
            "background gap",
            "category accuracy on backgrounds from the same category minus accuracy on backgrounds from any",
            "zero",
        ),
        lambda found: NO_INTERVAL if found.gap is None else found.gap.gap,
    ),
)


def league(comparison: Comparison) -> Table:
    """The measures of every encoder; the best values are marked."""
    encoders = list(comparison.encoders.values())
    columns = []
    for column, figure in LEAGUE:
        figures = [figure(each) for each in encoders]
        notes = [_chance(each, "background") if column.name == "background probe" else "" for each in encoders]
        cells = [cell(each, note=note) for each, note in zip(figures, notes, strict=True)]
        columns.append(_marked(cells, [each.value for each in figures], column.better))
    made = comparison.set
    of = f"masks {made.mask_kind}, {made.cut.left_out:.0%} of the photos left out"
    names = [(each.name, f"{each.family}, {each.dim} numbers; {of}") for each in encoders]
    return Table("Measures of each encoder", [column for column, _ in LEAGUE], _rows(names, columns))


def against_first(comparison: Comparison) -> Table | None:
    """Differences to the first encoder; None if there is no other."""
    others = [each for each in comparison.encoders.values() if each.versus]
    if not others:
        return None
    rows = [
        Row(
            each.name,
            "",
            [cell(paired.difference, signed=True, note=p_value(paired.p)) for paired in each.versus.values()],
        )
        for each in others
    ]
    return Table(
        f"Differences to {comparison.first}",
        [Column(name.replace("map@r", "MAP@R")) for name in others[0].versus],
        rows,
    )


def probes(comparison: Comparison) -> Table:
    """Scores of linear probes, with the chance level."""
    told = {
        "item": "trained on some backgrounds, tested on others",
        "category": "tested on other items",
        "background": "tested on other items",
    }
    encoders = list(comparison.encoders.values())
    known = [name for name in told if any(name in each.probes for each in encoders)]
    return Table(
        "Linear probes",
        [Column(name, told[name]) for name in known],
        [_probed(each, [each.probes.get(name, NO_PROBE) for name in known]) for each in encoders],
    )


def shares(
    comparison: Comparison, caption: str, of: Callable[[EncoderComparison], dict[str, Interval]]
) -> Table | None:
    """A decomposition of the variance; None if no encoder has it."""
    known = [each for each in comparison.encoders.values() if of(each)]
    if not known:
        return None
    rows = [Row(each.name, "", [cell(share) for share in of(each).values()]) for each in known]
    return Table(caption, [Column(name) for name in of(known[0])], rows)


def factors(comparison: Comparison) -> list[Table]:
    """MIG and DCI, then linear probes of each factor; empty if no factor is known."""
    known = [(each, each.disentanglement) for each in comparison.encoders.values() if each.disentanglement is not None]
    if not known:
        return []
    columns = [
        Column("MIG", "mutual information gap: how exclusively one unit encodes each factor", "high"),
        Column("DCI disentanglement", "how exclusively each unit encodes one factor", "high"),
        Column("DCI completeness", "how exclusively each factor is encoded by one unit", "high"),
        Column("DCI informativeness", "how well random forests predict the factors of other items", "high"),
    ]
    figures = [(found.mig.mean, *found.dci[:3]) for _, found in known]
    cells = [
        _marked([Cell(number(value)) for value in values], values, column.better)
        for column, values in zip(columns, zip(*figures, strict=True), strict=True)
    ]
    summary = Table("Disentanglement", columns, _rows([(each.name, "") for each, _ in known], cells))
    names = list(known[0][1].probes)
    kinds = {"accuracy": "accuracy on other items", "r2": "R² on other items"}
    heads = [Column(name, kinds[known[0][1].probes[name].kind]) for name in names]
    each_factor = [_probed(each, [found.probes[name] for name in names]) for each, found in known]
    return [summary, Table("Linear probes of each factor", heads, each_factor)]


def neighbours(maps: Maps) -> Table:
    """How often the nearest point in each map shows the same item, or the same background."""
    kinds = list(dict.fromkeys(each.kind for drawn in maps.of.values() for each in drawn))
    columns = [Column(f"{kind}, same {what}") for kind in kinds for what in ("item", "background")]
    rows = [
        Row(name, "", [Cell(number(share)) for each in drawn for share in (each.same_item, each.same_background)])
        for name, drawn in maps.of.items()
    ]
    return Table("Nearest neighbours in the maps", columns, rows)


def _probed(encoder: EncoderComparison, found: Iterable[Probe]) -> Row:
    return Row(encoder.name, "", [cell(probe.score, note=f"chance {number(probe.chance)}") for probe in found])


def _chance(encoder: EncoderComparison, probe: str) -> str:
    return f"chance {number(encoder.probes.get(probe, NO_PROBE).chance)}"


def _marked(cells: Sequence[Cell], values: Sequence[float], better: Better | None) -> list[Cell]:
    """The cells of a column, with its best value marked unless all values are equal."""
    known = np.asarray(values, np.float64)
    if better is None or len({each.value for each in cells}) < 2 or np.isnan(known).all():
        return list(cells)
    place = {
        "high": lambda: np.nanargmax(known),
        "low": lambda: np.nanargmin(known),
        "zero": lambda: np.nanargmin(np.abs(known)),
    }[better]()
    return [each._replace(is_best=each.value == cells[int(place)].value) for each in cells]


def _rows(names: Sequence[tuple[str, str]], columns: Sequence[Sequence[Cell]]) -> list[Row]:
    cells = zip(*columns, strict=True)
    return [Row(name, note, list(of_one)) for (name, note), of_one in zip(names, cells, strict=True)]
