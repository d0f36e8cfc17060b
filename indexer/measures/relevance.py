"""Ground truth of relevance: the same attribute, the same item, or the judgements of a qrels file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.errors import InvalidRequestError
from training.data.sources import SourceImage
from training.errors import SourceError

Qrels = dict[str, dict[str, float]]


class Relevance(Protocol):
    """Relevance grades of gallery images for queries."""

    def gains(self, queries: slice) -> NDArray[np.float32]:
        """Grades of the gallery for a block of queries, `(Q, M)` float32; 0 is not relevant."""
        ...


class SameLabel:
    """Gallery images with the query's label are relevant; a missing label matches nothing.

    Args:
        is_class: whether items share labels, so that knn@k is meaningful.
    """

    def __init__(self, queries: Sequence[str | None], gallery: Sequence[str | None], *, is_class: bool = False) -> None:
        self.is_class = is_class
        codes = {label: code for code, label in enumerate(sorted({*queries, *gallery} - {None}, key=str))}
        self._queries = np.array([codes.get(label, -1) for label in queries], dtype=np.int64)
        self._gallery = np.array([codes.get(label, -2) for label in gallery], dtype=np.int64)

    def gains(self, queries: slice) -> NDArray[np.float32]:
        same: NDArray[np.bool_] = self._queries[queries, None] == self._gallery[None]
        return same.astype(np.float32)

    def labels(self, queries: slice, places: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Labels of gallery positions `(Q, k)` and of a block of queries `(Q,)`; missing labels are negative."""
        return self._gallery[places], self._queries[queries]


class QrelsRelevance:
    """The grades of a qrels file, by item_id."""

    def __init__(self, qrels: Qrels, queries: Sequence[str], gallery: Sequence[str]) -> None:
        self._qrels = qrels
        self._queries = list(queries)
        self._places: dict[str, list[int]] = {}
        for place, item_id in enumerate(gallery):
            self._places.setdefault(item_id, []).append(place)
        self._count = len(gallery)

    def gains(self, queries: slice) -> NDArray[np.float32]:
        block = self._queries[queries]
        grades = np.zeros((len(block), self._count), dtype=np.float32)
        for row, query in enumerate(block):
            for item_id, grade in self._qrels.get(query, {}).items():
                grades[row, self._places.get(item_id, [])] = max(grade, 0.0)
        return grades


def make_relevance(kind: str, queries: Sequence[SourceImage], gallery: Sequence[SourceImage]) -> Relevance:
    """Relevance of a kind: `category`, `item_id`, `attribute:NAME` or the path of a qrels file.

    Raises:
        InvalidRequestError: unknown kind, or an attribute that all queries or all gallery images lack.
        SourceError: the qrels file cannot be read; the message names file and line.
    """
    if kind == "item_id":
        return SameLabel([image.item_id for image in queries], [image.item_id for image in gallery])
    if kind == "category" or kind.startswith("attribute:"):
        name = kind.removeprefix("attribute:")
        labels = [[image.attributes.get(name) for image in images] for images in (queries, gallery)]
        for where, found in zip(("queries", "gallery"), labels, strict=True):
            if not any(found):
                known = sorted({key for image in (*queries, *gallery) for key in image.attributes})
                there = ", ".join(known) or "none"
                raise InvalidRequestError(
                    "relevance", f"relevance {kind!r}: no image of the {where} has {name!r}; known attributes: {there}"
                )
        return SameLabel(*labels, is_class=True)
    if kind.endswith(".qrels") or Path(kind).is_file():
        qrels = read_qrels(Path(kind))
        return QrelsRelevance(qrels, [image.item_id for image in queries], [image.item_id for image in gallery])
    raise InvalidRequestError(
        "relevance", f"relevance {kind!r}: expected category, item_id, attribute:NAME or a FILE.qrels"
    )


def read_qrels(path: Path) -> Qrels:
    """The judgements of a TREC qrels file, whose lines hold query item, an ignored column, gallery item and grade."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise SourceError(f"{path}: cannot be read ({exc})") from exc
    qrels: Qrels = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        try:
            query, _, item_id, grade = fields
            value = float(grade)
        except ValueError as exc:
            raise SourceError(
                f"{path} line {number}: expected `query_item 0 gallery_item grade`, found {line[:80]!r}"
            ) from exc
        if not np.isfinite(value):
            raise SourceError(f"{path} line {number}: grade {grade!r} is not a number")
        if item_id in qrels.setdefault(query, {}):
            raise SourceError(f"{path} line {number}: {query!r} and {item_id!r} are listed twice; keep one line")
        qrels[query][item_id] = value
    if not qrels:
        raise SourceError(f"{path}: contains no judgements; expected lines `query_item 0 gallery_item grade`")
    return qrels
