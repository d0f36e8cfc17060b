"""The tables of the reports: one row for each encoder, figures with intervals, best values marked."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from indexer.measures.metrics import Interval
from indexer.reports.html import number

Better = Literal["high", "low", "zero"]
BETTER = {"high": "higher is better", "low": "lower is better", "zero": "closer to 0 is better"}


class Column(NamedTuple):
    """A heading, its meaning, and which values are best (None if there is no best value)."""

    name: str
    meaning: str = ""
    better: Better | None = None

    @property
    def title(self) -> str:
        return "; ".join(filter(None, [self.meaning, BETTER[self.better] if self.better else ""]))


class Cell(NamedTuple):
    """A formatted figure, its interval, and a note such as the chance level."""

    value: str
    spread: str = ""
    note: str = ""
    is_best: bool = False


class Row(NamedTuple):
    name: str
    note: str
    cells: list[Cell]


class Table(NamedTuple):
    """A caption for screen readers, the columns after the first, and one row for each encoder."""

    caption: str
    columns: list[Column]
    rows: list[Row]


def cell(interval: Interval, *, signed: bool = False, note: str = "") -> Cell:
    if np.isnan(interval.value):
        return Cell(number(interval.value))
    low, high = (number(end, signed=signed) for end in interval[1:])
    return Cell(number(interval.value, signed=signed), f"[{low} {high}]", note)
